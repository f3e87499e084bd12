"""Heads from plain values: every kind that there is, by its tag."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from typing import Any, get_type_hints

import msgspec

from rollout.errors import BundleError
from rollout.heads.head import Head


def kinds() -> tuple[type[Head], ...]:
    """Returns every kind that there is."""
    found: list[type[Head]] = [Head]
    for kind in found:  # it grows
        found += kind.__subclasses__()
    return tuple(kind for kind in found if issubclass(kind, msgspec.Struct) and kind.__struct_config__.tag)


def decode_head(kind: type, value: Any) -> Any:
    """Makes a head of what JSON holds of it; a hook for msgspec.

    Raises:
        NotImplementedError: If something else is wanted.
    """
    if kind is not Head:
        raise NotImplementedError(f"{kind} cannot be decoded")
    return msgspec.convert(value, reduce(or_, kinds()), dec_hook=decode_head)


def read_head(value: Any) -> Head:
    """Makes a head of plain values, such as those of ``GET /v1/models/{model}``.

    Raises:
        BundleError: If they are none.
    """
    try:
        head: Head = decode_head(Head, value)
    except msgspec.ValidationError as error:
        raise BundleError(f"not a head: {error}") from None
    return head


def require_answer(head: Head, answer: Mapping[str, Any]) -> None:
    """Refuses what a head cannot have answered.

    Args:
        head: The head.
        answer: In plain values, as it went out; it may have more fields.

    Raises:
        msgspec.ValidationError: If a field is missing or of another type.
        LookupError: If the answer of one of several heads is missing.
    """
    msgspec.convert(answer, _object_of(head.answer_type))
    for one, own in head.each(answer).values():
        require_answer(one, own)


@cache
def _object_of(kind: type[tuple[Any, ...]]) -> type[msgspec.Struct]:
    return msgspec.defstruct(kind.__name__, list(get_type_hints(kind, include_extras=True).items()))
