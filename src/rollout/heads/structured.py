"""Of several heads: their answers as one, their targets as one structured array, and figures of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError


class SeveralAnswer(NamedTuple):
    """The answers of all heads, by name."""

    heads: dict[str, dict[str, Any]]


def described(name: str, answers: Mapping[str, type[tuple[Any, ...]]]) -> type[tuple[Any, ...]]:
    """Returns ``SeveralAnswer`` with the fields of each head, for a schema.

    Args:
        name: What the object of all heads is called there.
        answers: By the name of a head, what it answers with.
    """
    parts = [
        (
            own,
            msgspec.defstruct(
                f"{name}_{own}",
                list(get_type_hints(kind, include_extras=True).items()),
                namespace={"__doc__": kind.__doc__},
            ),
        )
        for own, kind in answers.items()
    ]
    found: Any = NamedTuple("SeveralAnswer", [("heads", msgspec.defstruct(name, parts))])  # type: ignore[misc]
    found.__doc__ = SeveralAnswer.__doc__
    return found


# Before the name of a head: the field that says of which rows its target is known. Without one, it is of all.
KNOWN = "known:"


def targets_of(**targets: NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
    """Makes the targets of several heads: a structured array with a field for each.

    Args:
        targets: By the name of the head its targets, each of the same number of rows. Those that are not known
            are masked, as in ``np.ma.masked_array(values, mask=is_unknown)``, with one mask for a whole row.

    Returns:
        Shape ``(rows,)``.

    Raises:
        BundleError: If they have different numbers of rows.

    Example:
        >>> targets_of(late=[0, 1], minutes=[81.0, 95.5])["minutes"]
        array([81. , 95.5])
    """
    columns = {name: _column(column) for name, column in targets.items()}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise BundleError(f"the targets have different numbers of rows: {counts}")
    for name, given in targets.items():
        if isinstance(given, np.ma.MaskedArray) and given.mask.any():
            mask = np.ma.getmaskarray(given).reshape(len(given), -1)
            columns[KNOWN + name] = np.asarray(~mask.any(1))
    return _table(columns)


def columns_of(targets: NDArray[Any]) -> list[str]:
    """Returns the heads that targets have a field for; none where they are of a single head."""
    return [name for name in targets.dtype.names or () if not name.startswith(KNOWN)]


def known(targets: NDArray[Any], name: str) -> NDArray[np.bool_]:
    """Returns of which rows the target of a head is known, shape ``(rows,)``."""
    if KNOWN + name in (targets.dtype.names or ()):
        return np.asarray(targets[KNOWN + name])
    return np.ones(len(targets), bool)


def rows_of(targets: NDArray[Any], name: str) -> NDArray[Any]:
    """Returns the targets of a head, of those rows of which it is known."""
    return np.asarray(targets[name][known(targets, name)])


def joined(first: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
    """Puts targets behind others, of one head or several.

    Numbers keep the precision of ``first``. Of a head that ``more`` has no field for, nothing is known.
    """
    if not columns_of(first):
        return np.concatenate([first, more.astype(first.dtype) if first.dtype.kind in "fV" else more])
    columns: dict[str, NDArray[Any]] = {}
    for name in columns_of(first):
        own = first[name]
        added = more[name] if name in columns_of(more) else np.zeros((len(more), *own.shape[1:]), own.dtype)
        columns[name] = np.concatenate([own, added.astype(own.dtype) if own.dtype.kind == "f" else added])
        is_there = known(more, name) if name in columns_of(more) else np.zeros(len(more), bool)
        if not (both := np.concatenate([known(first, name), is_there])).all():
            columns[KNOWN + name] = both
    return _table(columns)


def corrected(target: NDArray[Any], said: NDArray[Any]) -> NDArray[Any]:
    """Returns the target of a row, shape ``(1, …)``, as somebody says it is; heads that were left out stay."""
    if not columns_of(target):
        return said.astype(target.dtype)
    new = target.copy()
    for name in columns_of(said):
        if name in columns_of(target):
            new[name] = said[name]
            if KNOWN + name in (new.dtype.names or ()):
                new[KNOWN + name] = True
    return new


def as_numbers(targets: NDArray[Any]) -> NDArray[np.float64]:
    """Returns targets as numbers side by side, shape ``(rows, numbers)``."""
    columns = [targets[name] for name in targets.dtype.names] if targets.dtype.names else [targets]
    return np.ascontiguousarray(
        np.concatenate([column.reshape(len(targets), -1).astype(np.float64) for column in columns], axis=1)
    )


def _column(given: NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
    return given.filled(0) if isinstance(given, np.ma.MaskedArray) else np.asarray(given)


def _table(columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    fields = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
    table = np.zeros(len(next(iter(columns.values()), ())), fields)
    for name, column in columns.items():
        table[name] = column
    return table


def without_name(name: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Returns the figures of one head, without its name."""
    start = f"{name}_"
    return {figure.removeprefix(start): value for figure, value in figures.items() if figure.startswith(start)}
