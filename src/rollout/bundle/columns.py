"""Columns of a batch: one array of all rows, or a ragged one where each row has a length of its own.

A ragged column is an object array of shape ``(rows,)`` that holds the array of each row; NumPy selects, stacks
and joins its rows like those of any other. It is padded when a batch is handed to a module, and nowhere before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The module gets a free field with at least so many steps: graphs are captured for two or more.
LEAST_WIDTH = 2
LENGTHS = "_lengths"
NO_WIDTHS: Mapping[str, int] = {}


def cell(row: NDArray[Any]) -> NDArray[Any]:
    """Wraps the array of one row, so that cells stack to a ragged column.

    Example:
        >>> column = np.stack([cell(np.zeros(3)), cell(np.ones(1))])
        >>> column.shape, column[1]
        ((2,), array([1.]))
    """
    wrapped = np.empty((), object)
    wrapped[()] = row
    return wrapped


def bare(row: NDArray[Any]) -> NDArray[Any]:
    """Takes the array of a row out of its cell, if it lies in one."""
    inside: NDArray[Any] = row[()] if row.dtype == object and not row.ndim else row
    return inside


def ragged(rows: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Returns a ragged column of the arrays of its rows."""
    return np.stack([cell(row) for row in rows])


def stacked(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Stacks the arrays of rows, to a ragged column where they differ in shape."""
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else ragged(rows)


def first(column: NDArray[Any]) -> NDArray[Any]:
    """Returns the first row of a column as ``decode`` makes it: in a cell, if it has a length of its own."""
    return cell(column[0]) if is_ragged(column) else np.asarray(column[0])


def is_ragged(column: NDArray[Any]) -> bool:
    """Whether each row of a column has a length of its own."""
    return column.dtype == object


def each(column: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """Changes a whole column at once, or each row of a ragged one."""
    return ragged(map(change, column)) if is_ragged(column) else change(column)


def lengths(column: NDArray[Any]) -> NDArray[np.int64]:
    """Returns the length of each row of a ragged column, shape ``(rows,)``."""
    return np.fromiter(map(len, column), np.int64, len(column))


def sizes(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Returns the bytes of each row in the ragged columns, shape ``(rows, columns)``; nothing where none is."""
    found = [
        np.fromiter((row.nbytes for row in column), np.int64, len(column))
        for column in columns.values()
        if is_ragged(column)
    ]
    rows = len(next(iter(columns.values())))
    return np.stack(found, axis=1) if found else np.zeros((rows, 0), np.int64)


def flat(column: NDArray[Any]) -> NDArray[Any]:
    """Returns the rows of a ragged column one after another; any other column as it is."""
    return np.concatenate(list(column)) if is_ragged(column) else column


def content(column: NDArray[Any]) -> bytes:
    """Returns what a column holds, for a hash; the lengths of ragged rows before them."""
    own = lengths(column).tobytes() if is_ragged(column) else b""
    return own + np.ascontiguousarray(flat(column)).tobytes()


def widths(columns: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Returns for each ragged column how many steps its longest row has."""
    return {name: int(lengths(column).max()) for name, column in columns.items() if is_ragged(column)}


def arguments(
    columns: Mapping[str, NDArray[Any]], least: Mapping[str, int] = NO_WIDTHS
) -> dict[str, NDArray[Any]]:
    """Returns the arguments of a module: a ragged column is padded with zeros and followed by its lengths.

    Args:
        columns: For each field its column.
        least: For each ragged column the steps to pad to at least, where these are more than its longest row has.

    Example:
        >>> arguments({"x": ragged([np.ones(3), np.ones(1)])})["x_lengths"]
        array([3, 1])
    """
    given: dict[str, NDArray[Any]] = {}
    for name, column in columns.items():
        if not is_ragged(column):
            given[name] = column
            continue
        known = lengths(column)
        width = max(LEAST_WIDTH, least.get(name, 0), int(known.max()))
        padded = np.zeros((len(column), width, *column[0].shape[1:]), column[0].dtype)
        for place, row in zip(padded, column, strict=True):
            place[: len(row)] = row
        given |= {name: padded, f"{name}{LENGTHS}": known}
    return given
