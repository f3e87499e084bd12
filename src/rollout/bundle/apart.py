"""The value of one input taken apart, so that each part can be left out: what an explanation is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle.columns import bare, flat, ragged

# ``occlusion``: each part is left out alone. ``shapley``: parts are left out in many sets, and share the effect.
Method = Literal["occlusion", "shapley"]
MOST_FEATURES = 32
MOST_SLICES = 32
MOST_WORDS = 128
MOST_PATCHES = 12  # along the longer side
WORD = re.compile(r"\S+\s*")


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part of an input, and where in it that is.

    Attributes:
        part: Where it is, in words; empty where it is the whole input.
        value: What is there, in words; empty for parts of images and sounds.
        box: Left, top, right and bottom of a patch, in pixels of the image that the model takes.
        span: Start and end of words in a text, in characters.
        seconds: Start and end of a slice of sound.
        steps: Start and end of numbers in nested lists, counted in C order; of a free dimension, in steps.
    """

    part: str = ""
    value: str = ""
    box: tuple[int, int, int, int] | None = None
    span: tuple[int, int] | None = None
    seconds: tuple[float, float] | None = None
    steps: tuple[int, int] | None = None


class Apart(NamedTuple):
    """The value of one input, taken apart.

    Attributes:
        method: How its parts are weighed.
        baseline: What stands in the place of a part that is left out, in words.
        parts: The parts.
        put_together: Makes values of those parts that are present, ``bool`` of shape ``(rows, parts)``, and for
            the others of a row of the background for each, a column of as many rows. Returns such a column.
    """

    method: Method
    baseline: str
    parts: Sequence[Part]
    put_together: Callable[[NDArray[np.bool_], NDArray[Any]], NDArray[Any]]


def features(row: NDArray[Any], parts: Sequence[Part], groups: NDArray[np.int64]) -> Apart:
    """Takes numbers apart of which any other value might have been sent: in their place is that of another row.

    Args:
        row: The numbers of the row.
        parts: The parts.
        groups: The index of the part that each number belongs to, of the shape of ``row``.
    """

    def put_together(present: NDArray[np.bool_], others: NDArray[Any]) -> NDArray[Any]:
        return np.where(present[:, groups], row, others)

    return Apart("shapley", "the values of background rows", parts, put_together)


def one_feature(row: NDArray[Any], value: str) -> Apart:
    """Takes a value as the one part that it is."""
    return features(row, [Part(value=value)], np.zeros(row.shape, np.int64))


def numbers(row: NDArray[Any]) -> Apart:
    """Takes numbers of any fixed shape apart: each alone, or of many those that follow each other together."""
    cuts = _cut(row.size, MOST_FEATURES)
    parts = []
    for start, stop in cuts:
        place = ", ".join(str(at) for at in np.unravel_index(start, row.shape))
        is_one = stop - start == 1
        parts.append(
            Part(
                part=f"[{place}]" if is_one else f"{start} to {stop - 1}",
                value=f"{row.flat[start]:.6g}" if is_one else "",
                steps=(start, stop),
            )
        )
    return features(row, parts, _groups(cuts).reshape(row.shape))


def patches(row: NDArray[Any], background: NDArray[Any]) -> Apart:
    """Takes an image of shape ``(height, width)`` or ``(height, width, 3)`` apart into square patches.

    In the place of one is the mean of the background there. A single grey square (Zeiler & Fergus 2014, section
    4.2) would itself be something new where images have nothing, such as the edges of scans.
    """
    height, width = row.shape[:2]
    side = -(-max(height, width) // MOST_PATCHES)
    mean = background.mean(axis=0).round().astype(row.dtype)
    across = -(-width // side)
    groups = np.arange(height)[:, None] // side * across + np.arange(width) // side
    parts = [
        Part(part=f"{left}, {top}", box=(left, top, min(left + side, width), min(top + side, height)))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    deep = groups if row.ndim == 2 else np.repeat(groups[:, :, None], 3, axis=2)

    def put_together(present: NDArray[np.bool_], _: NDArray[Any]) -> NDArray[Any]:
        return np.where(present[:, deep], row, mean)

    return Apart("occlusion", "the mean image of the background rows", parts, put_together)


def words(row: NDArray[np.uint8]) -> Apart:
    """Takes a text, its UTF-8 bytes padded with zeros, apart into words; of very many, neighbours together.

    A word that is left out is not there, nor the space behind it.
    """
    text = row.tobytes().rstrip(b"\0").decode()
    found = [match.span() for match in WORD.finditer(text)] or [(0, len(text))]
    spans = [(found[first][0], found[last - 1][1]) for first, last in _cut(len(found), MOST_WORDS)]
    before = text[: spans[0][0]]
    pieces = [text[start:stop] for start, stop in spans]
    parts = []
    for (start, _), piece in zip(spans, pieces, strict=True):
        word = piece.rstrip()
        parts.append(Part(value=word, span=(start, start + len(word))))

    def put_together(present: NDArray[np.bool_], _: NDArray[Any]) -> NDArray[Any]:
        column = np.zeros((len(present), len(row)), np.uint8)
        for place, is_there in zip(column, present, strict=True):
            kept = before + "".join(piece for piece, one in zip(pieces, is_there, strict=True) if one)
            data = np.frombuffer(kept.encode(), np.uint8)
            place[: len(data)] = data
        return column

    return Apart("occlusion", "nothing: the word is left out", parts, put_together)


def sound(row: NDArray[Any], rate: int) -> Apart:
    """Takes samples, an array or a cell of one, apart into slices of time; in the place of one is silence."""
    cuts = _cut(len(bare(row)), MOST_SLICES)
    seconds = [(round(start / rate, 4), round(stop / rate, 4)) for start, stop in cuts]
    parts = [Part(part=f"{start:g} s to {stop:g} s", seconds=(start, stop)) for start, stop in seconds]
    return _sliced(row, np.array(0), "silence", parts, cuts)


def steps(row: NDArray[Any], background: NDArray[Any]) -> Apart:
    """Takes the cell of a row apart into slices of its steps; in the place of one are means of the background."""
    own = bare(row)
    cuts = _cut(len(own), MOST_SLICES)
    known = flat(background)
    mean = np.nanmean(known, axis=0) if np.isfinite(known).any() else np.zeros(known.shape[1:])
    fill = np.nan_to_num(mean).astype(own.dtype)
    parts = [
        Part(
            part=f"[{start}]" if stop - start == 1 else f"{start} to {stop - 1}",
            value=f"{own[start]:.6g}" if stop - start == 1 and own.ndim == 1 else "",
            steps=(start, stop),
        )
        for start, stop in cuts
    ]
    return _sliced(row, fill, "the mean of all steps of the background rows", parts, cuts)


def _sliced(
    row: NDArray[Any], fill: NDArray[Any], baseline: str, parts: Sequence[Part], cuts: Sequence[tuple[int, int]]
) -> Apart:
    own, groups, is_cell = bare(row), _groups(cuts), row.dtype == object

    def each(present: NDArray[np.bool_]) -> Iterator[NDArray[Any]]:
        for is_there in present:
            shown = is_there[groups].reshape(-1, *(1,) * (own.ndim - 1))
            yield np.where(shown, own, fill).astype(own.dtype)

    def put_together(present: NDArray[np.bool_], _: NDArray[Any]) -> NDArray[Any]:
        return ragged(each(present)) if is_cell else np.stack(list(each(present)))

    return Apart("occlusion", baseline, parts, put_together)


def _cut(count: int, most: int) -> list[tuple[int, int]]:
    """Cuts so many things into as many parts, or into ``most`` of nearly the same size."""
    edges = np.linspace(0, count, min(count, most) + 1).round().astype(int).tolist()
    return list(pairwise(edges))


def _groups(cuts: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Returns for each thing that was cut the index of its part."""
    return np.repeat(np.arange(len(cuts)), [stop - start for start, stop in cuts])
