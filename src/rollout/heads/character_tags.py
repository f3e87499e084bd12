"""Tags of the characters of many texts, as arrays: from what a module says of bytes to spans.

*Codes* say what each character is, ``int64`` of shape ``(rows, positions)``: 0 outside of all spans, ``2 k - 1``
where a span of the label ``k`` begins, from 1, and ``2 k`` inside of it. They are the tags of ``BIO``, mended:
what is inside follows its like. So two texts have the same spans where their codes are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.heads.spans import Scheme, Span

Ints = NDArray[np.int64]
CONTINUES = 0b10  # the first two bits of a byte of UTF-8 that begins no character


class Places(NamedTuple):
    """Where the characters of texts are, one after the other over all rows.

    Attributes:
        rows: The row of each.
        byte: Its first byte.
        number: Which character of the row it is, from 0.
    """

    rows: Ints
    byte: Ints
    number: Ints


class Bounds(NamedTuple):
    """The spans of texts, one after the other over all rows.

    Attributes:
        rows: The row of each.
        start: Its first character.
        end: The first character after it.
        label: What it is, from 1.
    """

    rows: Ints
    start: Ints
    end: Ints
    label: Ints


def places(text: NDArray[Any]) -> Places:
    """Finds the characters of texts.

    Args:
        text: Their bytes in UTF-8 with zeros behind them, numbers of any type, shape ``(rows, positions)``.
    """
    with np.errstate(invalid="ignore"):  # of a module that fails, they may be no numbers
        data = np.nan_to_num(text, nan=0.0, posinf=0.0, neginf=0.0).astype(np.int64)
    begins = (data != 0) & (data >> 6 != CONTINUES)
    rows, byte = np.nonzero(begins)
    return Places(rows, byte, (np.cumsum(begins, axis=1) - 1)[rows, byte])


def by_character(values: NDArray[Any], where: Places, nothing: float) -> NDArray[Any]:
    """Returns what is said of the first byte of each character, character by character.

    Args:
        values: Of bytes, shape ``(rows, positions)``.
        where: The characters.
        nothing: What stands behind the last.
    """
    found = np.full_like(values, nothing)
    found[where.rows, where.number] = values[where.rows, where.byte]
    return found


def codes_of(tags: NDArray[Any], scheme: Scheme) -> Ints:
    """Makes codes of tags, which are indexes of ``spans.tag_names``; shape ``(rows, positions)``.

    As in ``spans.decode``, what is inside of a label without a beginning begins a span.
    """
    label = tags.astype(np.int64) if scheme == "IO" else (tags.astype(np.int64) + 1) // 2
    begins = label != np.pad(label[:, :-1], ((0, 0), (1, 0)))
    if scheme == "BIO":
        begins |= tags % 2 == 1
    return np.asarray(np.where(label > 0, 2 * label - begins, 0))


def bounds(codes: Ints) -> Bounds:
    """Finds the spans of codes."""
    following = np.pad(codes[:, 1:], ((0, 0), (0, 1)))
    rows, start = np.nonzero(codes % 2 == 1)
    _, last = np.nonzero((codes > 0) & ((following == 0) | (following % 2 == 1)))
    return Bounds(rows, start, last + 1, (codes[rows, start] + 1) // 2)


def spans_of(codes: Ints, labels: Sequence[str]) -> list[list[Span]]:
    """Makes spans of codes, a list for each row."""
    found = bounds(codes)
    rows: list[list[Span]] = [[] for _ in codes]
    for row, start, end, label in zip(*(column.tolist() for column in found), strict=True):
        rows[row].append(Span(start, end, labels[label - 1]))
    return rows


def least_around(values: NDArray[np.float64], found: Bounds) -> NDArray[np.float64]:
    """Returns the least value of the characters of each span, and of the two next to it."""
    width = values.shape[1] + 2
    padded = np.append(np.pad(values, ((0, 0), (1, 1)), constant_values=1.0), 1.0)
    ends = np.stack([found.rows * width + found.start, found.rows * width + found.end + 2], axis=1)
    return np.asarray(np.minimum.reduceat(padded, ends.ravel())[::2])


def shared(ones: Bounds, others: Bounds, positions: int) -> NDArray[np.bool_]:
    """Says which of ``ones`` are among ``others``: row, start, end and label are the same."""

    def keys(found: Bounds) -> Ints:
        place = (found.rows * (positions + 1) + found.start) * (positions + 1) + found.end
        return np.asarray(place * (max(ones.label.max(initial=0), others.label.max(initial=0)) + 1) + found.label)

    return np.isin(keys(ones), keys(others))


def losses(ones: Bounds, others: Bounds, rows: int, positions: int) -> NDArray[np.float64]:
    """Returns how far the spans of each row are apart, as ``spans.loss`` does; shape ``(rows,)``."""
    both = np.bincount(ones.rows[shared(ones, others, positions)], minlength=rows)
    total = np.bincount(ones.rows, minlength=rows) + np.bincount(others.rows, minlength=rows)
    return np.asarray(1 - np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0))
