"""Answers as an Arrow table: a column for each field of an answer, JSON where it has no type of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import UnsetType

from rollout.heads import Head

_encode = msgspec.json.Encoder().encode


class AnswerColumns(NamedTuple):
    """The columns of the answers of a head.

    Attributes:
        types: The Arrow type of each, by name.
        as_json: Those that hold JSON.
    """

    types: Mapping[str, Any]
    as_json: Sequence[str]

    def encode(self, record: dict[str, Any]) -> dict[str, Any]:
        """Makes JSON of the values in a row that are JSON in the table."""
        record.update({name: _encode(record[name]).decode() for name in self.as_json if record[name] is not None})
        return record


def answer_columns(head: Head) -> AnswerColumns:
    """Returns the columns of the answers of a head."""
    import pyarrow  # noqa: PLC0415

    kinds = {name: _arrow_type(annotation, keys) for name, (annotation, keys) in head.table().items()}
    return AnswerColumns(
        {name: kind or pyarrow.string() for name, kind in kinds.items()},
        [name for name, kind in kinds.items() if kind is None],
    )


def _arrow_type(annotation: Any, keys: Sequence[str] | None) -> Any:
    """Returns the type of a column for a type of Python.

    Args:
        annotation: Of a field of an answer.
        keys: The names in an object, where they are always the same.

    Returns:
        ``None`` where the column has none: it is JSON then.
    """
    import pyarrow  # noqa: PLC0415

    alone = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64(), bool: pyarrow.bool_()}
    if annotation in alone:
        return alone[annotation]
    origin, inside = get_origin(annotation), [kind for kind in get_args(annotation) if kind is not Ellipsis]
    if origin in {Union, UnionType}:
        (one, *more) = (kind for kind in inside if kind not in {NoneType, UnsetType})
        return None if more else _arrow_type(one, keys)
    if origin in {list, tuple} and len(set(inside)) == 1:
        element = _arrow_type(inside[0], None)
        return None if element is None else pyarrow.list_(element)
    if origin is dict and keys is not None:
        element = _arrow_type(inside[1], None)
        return None if element is None else pyarrow.struct([(name, element) for name in keys])
    return None
