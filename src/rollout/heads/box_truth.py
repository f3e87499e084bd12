"""Boxes as people, authors and Label Studio say them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads.head import DIGITS
from rollout.heads.label_sets import must_be_one_of
from rollout.heads.truth import Box, Truth

if TYPE_CHECKING:
    from rollout.heads.boxes import Boxes

COLUMNS = 5  # of a true box: index of its label, and its edges
PERCENT = 100
Edges = tuple[float, float, float, float]


def box_targets(rows: Sequence[Sequence[tuple[str, Sequence[float]]]], head: Boxes) -> NDArray[np.float64]:
    """Makes targets of boxes.

    Args:
        rows: For each image its boxes: a label, and left, top, right and bottom edge in parts of it.
        head: What they are targets of.

    Returns:
        Index of the label and the edges, NaN where there is no box, shape ``(rows, head.most, 5)``.

    Raises:
        BundleError: If there are more than ``head.most``, or a label is none.

    Example:
        >>> head = Boxes(labels=["circle", "square"], candidates=9, most=2)
        >>> box_targets([[("square", (0.1, 0.2, 0.5, 0.6))]], head)[0].tolist()
        [[1.0, 0.1, 0.2, 0.5, 0.6], [nan, nan, nan, nan, nan]]
    """
    targets = np.full((len(rows), head.most, COLUMNS), np.nan)
    for row, boxes in enumerate(rows):
        if len(boxes) > head.most:
            raise BundleError(f"row {row} has {len(boxes)} boxes; most={head.most} allows no more than that")
        for place, (label, edges) in enumerate(boxes):
            if label not in head.labels:
                raise BundleError(f"row {row} has a box of {label!r}, which {must_be_one_of(head.labels)}")
            targets[row, place] = head.labels.index(label), *edges
    return targets


def check_box_targets(targets: NDArray[Any], labels: Sequence[str], most: int) -> None:
    """Refuses targets that are not what ``box_targets`` makes.

    Raises:
        BundleError: If so.
    """
    is_shaped = np.issubdtype(targets.dtype, np.floating) and targets.shape[1:] == (most, COLUMNS)
    if not is_shaped or not _are_boxes(targets, len(labels)):
        raise BundleError(
            f"targets must be of shape (rows, {most}, {COLUMNS}): index of the label, and left, top, right and "
            "bottom edge from 0 to 1, each before the one across; NaN where there is no box. rollout.box_targets "
            "makes them"
        )


def _are_boxes(targets: NDArray[Any], labels: int) -> bool:
    there = targets[~np.isnan(targets).all(-1)]
    edges = there[:, 1:]
    in_order = edges[:, :2] < edges[:, 2:]  # NaN is not
    are_labels = np.isin(there[:, 0], np.arange(labels))
    return bool(are_labels.all() and in_order.all() and ((edges >= 0) & (edges <= 1)).all())


def find_faults(truth: Truth, labels: Sequence[str], most: int) -> Iterator[tuple[str, str]]:
    """Yields labels that are none, edges that are not in order or outside the image, and too many boxes."""
    boxes = truth.boxes or []
    if len(boxes) > most:
        yield "/boxes", f"holds {len(boxes)} boxes; there are at most {most}"
    for place, (label, (left, top, right, bottom)) in enumerate((box.label, box.box) for box in boxes):
        if label not in labels:
            yield f"/boxes/{place}/label", must_be_one_of(labels)
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            yield (
                f"/boxes/{place}/box",
                "must be left, top, right and bottom edge in parts of the image, from 0 to 1, left before "
                "right and top before bottom",
            )


def boxes_said(truth: Truth) -> tuple[list[Edges], list[str]]:
    """Returns what was said: edges, and labels."""
    boxes = truth.boxes or []
    return [box.box for box in boxes], [box.label for box in boxes]


def rectangle(label: str, score: float, edges: Sequence[float]) -> dict[str, Any]:
    """Returns a box as a region of Label Studio, in percent of the image."""
    left, top, right, bottom = edges
    places = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    percent = {name: round(part * PERCENT, DIGITS) for name, part in places.items()}
    return {
        "type": "rectanglelabels",
        "score": score,
        "value": {**percent, "rotation": 0, "rectanglelabels": [label]},
    }


def read_rectangle(value: Mapping[str, Any]) -> Box:
    """Makes a box of a rectangle of Label Studio.

    Raises:
        ValueError: If it is turned, or has not one label.
    """
    labels = value["rectanglelabels"]
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise ValueError("a rectangle has one label")
    if value.get("rotation"):
        raise ValueError("a rectangle is turned: boxes have edges along those of the image")
    found = [value.get(name) for name in ("x", "y", "width", "height")]
    if not all(isinstance(one, int | float) for one in found):
        raise ValueError("a rectangle has no x, y, width and height in percent")
    left, top, width, height = (float(one) for one in found if one is not None)
    edges = left, top, left + width, top + height
    one, two, three, four = (min(max(round(edge / PERCENT, DIGITS), 0.0), 1.0) for edge in edges)
    return Box(labels[0], (one, two, three, four))
