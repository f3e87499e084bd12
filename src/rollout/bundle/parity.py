"""Parity: does a variant decide as its source does, in every company?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.fields import Field
from rollout.bundle.runtimes import Scores
from rollout.bundle.schema import Arrays

BATCH_SIZES = (1, 2, 3, 7, 32, 64)
TOLERANCE = 1e-4


class Parity(NamedTuple):
    """How far a variant is from its source.

    Attributes:
        rows: Rows compared.
        largest_difference: Largest absolute difference of a score.
        labels_flipped: Rows whose most likely class differs.
        reviews_flipped: Rows that one of the two would send to review and the other would not.
    """

    rows: int
    largest_difference: float
    labels_flipped: int
    reviews_flipped: int

    @property
    def holds(self) -> bool:
        """Whether no decision differs and every score agrees within ``TOLERANCE``."""
        return self.labels_flipped == self.reviews_flipped == 0 and self.largest_difference <= TOLERANCE


def compare(expected: Scores, got: Scores, review_threshold: float) -> Parity:
    """Compares two sets of scores of shape ``(rows, classes)`` row by row."""
    # NaN compares as different: a difference that is not a number counts as infinite.
    differences = np.nan_to_num(np.abs(expected - got), nan=np.inf)
    return Parity(
        rows=len(expected),
        largest_difference=float(differences.max(initial=0.0)),
        labels_flipped=int((expected.argmax(-1) != got.argmax(-1)).sum()),
        reviews_flipped=int(((expected.max(-1) < review_threshold) != (got.max(-1) < review_threshold)).sum()),
    )


def run_in_batches(run: Callable[[Arrays], Scores], inputs: Arrays) -> Scores:
    """Scores all rows, cut into batches whose sizes walk through ``BATCH_SIZES``."""
    rows = len(next(iter(inputs.values())))
    return np.concatenate([run(take(inputs, cut)) for cut in _cuts(rows)])


def take(inputs: Arrays, rows: slice | NDArray[Any]) -> Arrays:
    """Selects rows of a batch."""
    return {name: array[rows] for name, array in inputs.items()}


def synthetic_inputs(fields: dict[str, Field], rows: int, seed: int) -> Arrays:
    """Makes random inputs, the first three rows at the bottom, the top and the middle of the range."""
    generator = np.random.default_rng(seed)
    return {name: _synthetic(field, rows, generator) for name, field in fields.items()}


def _synthetic(field: Field, rows: int, generator: np.random.Generator) -> NDArray[Any]:
    low, high = getattr(field, "minimum", None), getattr(field, "maximum", None)
    if field.dtype == "uint8":
        low, high = 0 if low is None else low, 255 if high is None else high
    low, high = -1000 if low is None else low, 1000 if high is None else high
    shape = (rows, *field.shape)
    array: NDArray[Any]
    if field.dtype == "float32":
        array = generator.uniform(low, high, shape)
    else:
        array = generator.integers(int(low), int(high), shape, endpoint=True)
    for row, value in enumerate((low, high, (low + high) / 2)):
        array[row : row + 1] = value
    return array.astype(field.dtype)


def _cuts(rows: int) -> Iterator[slice]:
    start = 0
    while start < rows:
        for size in BATCH_SIZES:
            if start < rows:
                yield slice(start, start + size)
                start += size
