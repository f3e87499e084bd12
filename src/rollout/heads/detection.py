"""From candidates to boxes: suppression of those found twice, how well their scores are calibrated, precision."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.heads.matching import match

Array = NDArray[np.float64]

# Of an image, at most so many candidates are looked at, those with the best scores: as RetinaNet does.
MOST_CANDIDATES = 1000
COLUMNS = 5  # of a true box: index of its label, and its edges


class Detected(NamedTuple):
    """Boxes of some rows, best first; behind the last of a row there are zeros.

    Attributes:
        number: How many each row has, ``int64`` of shape ``(rows,)``.
        places: Which candidate each was, ``int64`` of shape ``(rows, most)``.
        labels: Index of its label, ``int64`` of shape ``(rows, most)``.
        scores: Shape ``(rows, most)``.
        boxes: Shape ``(rows, most, 4)``.
    """

    number: NDArray[np.int64]
    places: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: Array
    boxes: Array

    @property
    def is_there(self) -> NDArray[np.bool_]:
        """Which places hold a box, shape ``(rows, most)``."""
        return np.asarray(np.arange(self.labels.shape[1]) < self.number[:, None])

    @property
    def lowest(self) -> Array:
        """The lowest score of each row, shape ``(rows,)``; 1 where there is no box."""
        return np.asarray(np.where(self.is_there, self.scores, 1.0).min(1, initial=1.0))

    def row(self, row: int) -> tuple[Array, list[int]]:
        """Returns the boxes of a row, shape ``(n, 4)``, and their labels."""
        count = int(self.number[row])
        return self.boxes[row, :count], self.labels[row, :count].tolist()


def detect(boxes: NDArray[Any], scores: NDArray[Any], least: float, overlap: float | None, most: int) -> Detected:
    """Makes boxes of candidates, the same ones whatever other rows there are.

    A candidate is what its best label says. Among those of one label the one with the best score is taken, and
    those that overlap it by more than ``overlap`` are not: greedy non-maximum suppression (Neubeck & Van Gool,
    "Efficient Non-Maximum Suppression", 2006). One without an area is none.

    Args:
        boxes: Left, top, right and bottom edge, from 0 to 1, where they are cut; shape ``(rows, n, 4)``.
        scores: Shape ``(rows, n, labels)``.
        least: The lowest score that is taken.
        overlap: Intersection over union; ``None`` suppresses none.
        most: How many boxes a row has at most.
    """
    rows, edges = len(boxes), boxes.astype(np.float64).clip(0, 1)
    best = scores.max(-1).astype(np.float64)
    sizes = (edges[..., 2:] - edges[..., :2]).clip(0)
    is_taken = (best >= least) & (sizes.prod(-1) > 0)  # NaN is not
    order = np.argsort(np.where(is_taken, -best, 1), axis=1, kind="stable")
    order = order[:, : min(MOST_CANDIDATES, int(is_taken.sum(1).max(initial=0)))]
    left = np.take_along_axis(is_taken, order, 1)
    labels = np.take_along_axis(scores.argmax(-1), order, 1)
    edges = np.take_along_axis(edges, order[..., None], 1)
    chosen = np.zeros((rows, most), np.int64)
    count, every = np.zeros(rows, np.int64), np.arange(rows)
    for place in range(most):
        if not left.any():
            break
        at = left.argmax(1)
        has_one = left[every, at]
        chosen[has_one, place] = at[has_one]
        count += has_one
        if overlap is not None:
            is_same = labels == labels[every, at][:, None]
            left &= ~(is_same & (_overlaps(edges, edges[every, at]) > overlap))
        left[every, at] = False
    there = np.arange(most) < count[:, None]
    if not order.shape[1]:
        return Detected(count, chosen, chosen.copy(), np.zeros((rows, most)), np.zeros((rows, most, 4)))
    places = np.take_along_axis(order, chosen, 1)
    return Detected(
        count,
        np.where(there, places, 0),
        np.where(there, np.take_along_axis(labels, chosen, 1), 0),
        np.where(there, np.take_along_axis(best, places, 1), 0.0),
        np.where(there[..., None], np.take_along_axis(edges, chosen[..., None], 1), 0.0),
    )


def _overlaps(boxes: Array, ones: Array) -> Array:
    """Returns the intersection over union of each box of a row, ``(rows, n, 4)``, with one, ``(rows, 4)``."""
    one = ones[:, None]
    upper = np.maximum(boxes[..., :2], one[..., :2])
    shared = (np.minimum(boxes[..., 2:], one[..., 2:]) - upper).clip(0).prod(-1)
    areas, area = ((each[..., 2:] - each[..., :2]).clip(0).prod(-1) for each in (boxes, one))
    either = areas + area - shared
    return np.asarray(np.divide(shared, either, out=np.zeros_like(shared), where=either > 0))


def true_boxes(targets: NDArray[Any]) -> tuple[Array, list[int]]:
    """Returns the boxes of a row of targets, shape ``(n, 4)``, and their labels; rows of NaN are none."""
    there = targets[~np.isnan(targets[:, 0])]
    return there[:, 1:], there[:, 0].astype(int).tolist()


def matched(found: Detected, targets: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns which boxes are a true one, shape ``(rows, most)``.

    Args:
        found: The boxes.
        targets: Shape ``(rows, most, 5)``.
    """
    is_true = np.zeros(found.labels.shape, bool)
    for row, target in enumerate(targets):
        for one, _ in match(*found.row(row), *true_boxes(target)):
            is_true[row, one] = True
    return is_true


def mean_average_precision(found: Detected, targets: NDArray[Any]) -> float:
    """Returns the mean, over the labels of which there is a true box, of the average precision.

    It is the area below precision over recall where each precision is the best at that recall or more: all
    points, as VOC has it since 2010 (Everingham & Winn, "The PASCAL Visual Object Classes Challenge 2010
    Development Kit", section 3.4.1). Boxes that were left out, below the least score, are not found.

    Returns:
        From 0 to 1; NaN where there is no true box.
    """
    is_true, there = matched(found, targets), found.is_there
    labels = targets[..., 0]
    found_of = [(label, there & (found.labels == label)) for label in np.unique(labels[~np.isnan(labels)])]
    each = [
        average_precision(found.scores[own], is_true[own], int((labels == label).sum()))
        for label, own in found_of
    ]
    return float(np.mean(each or [math.nan]))


def average_precision(scores: Array, is_true: NDArray[np.bool_], true: int) -> float:
    """Returns the average precision of the boxes of one label; see ``mean_average_precision``.

    Args:
        scores: Shape ``(n,)``.
        is_true: Which are a true box, shape ``(n,)``.
        true: How many true boxes there are, at least one.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2)
        0.8333333333333333
    """
    right = is_true[np.argsort(-scores, kind="stable")]
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[right].sum() / true)
