"""Which boxes of two sets are the same, and how far apart the sets are.

A box is ``x0, y0, x1, y1`` with the origin at the upper left, in any unit, of which both sets have the same. Its
width is ``x1 - x0``: a box of pixels ends where the next pixel begins. One that is not wider or higher than
nothing has no area and is the same as none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# From which overlap on boxes are the same (Everingham et al. 2010, section 4.2).
SAME = 0.5


def iou(ones: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Returns the area that both boxes cover as a part of what either covers: intersection over union.

    Args:
        ones: Boxes, shape ``(n, 4)``.
        others: Boxes, shape ``(m, 4)``.

    Returns:
        From 0 to 1, shape ``(n, m)``; 0 where a box has no area or a number that is none.

    Example:
        >>> iou([[0, 0, 2, 2]], [[1, 0, 3, 2], [5, 5, 6, 6]]).round(3).tolist()
        [[0.333, 0.0]]
    """
    one, other = _with_numbers(ones), _with_numbers(others)
    upper = np.maximum(one[:, None, :2], other[None, :, :2])
    lower = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(lower - upper, 0, None).prod(-1)
    either = _areas(one)[:, None] + _areas(other)[None, :] - shared
    return np.asarray(np.divide(shared, either, out=np.zeros_like(shared), where=shared > 0))


def _with_numbers(boxes: ArrayLike) -> NDArray[np.float64]:
    """Returns boxes as an array, those with a number that is none without an area."""
    found = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.where(np.isfinite(found).all(1, keepdims=True), found, 0)


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1))


def match(
    found: ArrayLike, labels: Sequence[Any], true: ArrayLike, true_labels: Sequence[Any], least: float = SAME
) -> list[tuple[int, int]]:
    """Finds which true box each found one is, the best found one first, as detections are judged.

    A found box is the true one of the same label that it overlaps most, by ``least`` or more, and each true box
    is found once: whatever else overlaps it is wrong (Everingham et al., "The Pascal Visual Object Classes (VOC)
    Challenge", 2010, section 4.2). The most overlapped one is looked for among those that are not found yet, as
    in COCO (Lin et al., "Microsoft COCO: Common Objects in Context", 2014); VOC takes a box as wrong whose most
    overlapped one is found already, even if it overlaps another.

    Args:
        found: Boxes, the one with the best score first, shape ``(n, 4)``.
        labels: Their labels.
        true: Boxes, shape ``(m, 4)``.
        true_labels: Their labels.
        least: The intersection over union from which boxes are the same, above 0.

    Returns:
        Pairs of indexes of a found and a true box, in the order of the found ones.
    """
    overlaps = _overlaps(found, labels, true, true_labels)
    ones, others = np.nonzero(overlaps >= least)
    return _greedy(sorted(zip(ones.tolist(), (-overlaps[ones, others]).tolist(), others.tolist(), strict=True)))


def loss(
    ones: ArrayLike, labels: Sequence[Any], others: ArrayLike, other_labels: Sequence[Any], least: float = SAME
) -> float:
    """Returns how far two sets of boxes are apart: 1 less the F1 of one as the answer to the other.

    No set is the first: pairs are made from the largest overlap down, each box in one, whatever order they are
    in.

    Args:
        ones: Boxes, shape ``(n, 4)``.
        labels: Their labels.
        others: Boxes, shape ``(m, 4)``.
        other_labels: Their labels.
        least: The intersection over union from which boxes are the same, above 0.

    Returns:
        From 0 to 1; 0 for two sets without a box.
    """
    overlaps = _overlaps(ones, labels, others, other_labels)
    rows, columns = np.nonzero(overlaps >= least)
    ordered = sorted(zip((-overlaps[rows, columns]).tolist(), rows.tolist(), columns.tolist(), strict=True))
    pairs = _greedy((row, below, column) for below, row, column in ordered)
    return 1 - f1(len(pairs), *overlaps.shape)


def f1(same: int, found: int, true: int) -> float:
    """Returns the harmonic mean of precision and recall, from their counts.

    van Rijsbergen, "Information Retrieval", 1979, chapter 7.

    Args:
        same: How many of both are the same.
        found: How many were found.
        true: How many there are.

    Returns:
        From 0 to 1; 1 where there is nothing and nothing was found.
    """
    return 2 * same / (found + true) if found + true else 1.0


def _overlaps(
    ones: ArrayLike, labels: Sequence[Any], others: ArrayLike, other_labels: Sequence[Any]
) -> NDArray[np.float64]:
    overlaps = iou(ones, others)
    if overlaps.shape != (len(labels), len(other_labels)):
        raise ValueError("there must be as many labels as boxes")
    if not overlaps.size:
        return overlaps
    return np.asarray(overlaps * (np.asarray(list(labels))[:, None] == np.asarray(list(other_labels))))


def _greedy(candidates: Iterable[tuple[int, float, int]]) -> list[tuple[int, int]]:
    """Takes pairs in the given order, each index on either side once."""
    pairs: list[tuple[int, int]] = []
    ones, others = set[int](), set[int]()
    for one, _, other in candidates:
        if one not in ones and other not in others:
            ones.add(one)
            others.add(other)
            pairs.append((one, other))
    return pairs
