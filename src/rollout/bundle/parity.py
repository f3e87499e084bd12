"""Parity: does a variant decide as its source does, in batches of every size?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle import columns
from rollout.bundle.schema import Arrays
from rollout.heads import Flags, Head, Scores
from rollout.notebook import show

MAX_BATCH = 64
TOLERANCE = 1e-4
# Another device computes in another order: on an H100, the scores of a ResNet-50 in single precision were up to
# 0.0045 from the processor's, and no decision was another.
ELSEWHERE = 0.01

Run = Callable[[Arrays], Scores]


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far one set of scores is from another.

    Attributes:
        rows: Rows compared.
        largest_difference: Largest absolute difference of a score, in units of ``task.scale``.
        answers_flipped: Rows that get another answer.
        reviews_flipped: Rows that one of the two would send to review and the other would not.
        tolerance: How far scores may be apart where they are held to each other; see ``precision.tolerances``.
        ties: Rows whose decision differs though no score does by more than that: how they are rounded decides.
            They are not counted as flipped.
    """

    rows: int
    largest_difference: float
    answers_flipped: int
    reviews_flipped: int
    tolerance: float = TOLERANCE
    ties: list[int] = []

    @property
    def is_exact(self) -> bool:
        """Whether no decision differs, but for ties, and every score agrees within the tolerance."""
        return self.answers_flipped == self.reviews_flipped == 0 and self.largest_difference <= self.tolerance

    def __str__(self) -> str:
        tied = f"; ties: row {', '.join(map(str, self.ties))}" if self.ties else ""
        return (
            f"of {self.rows} rows {self.answers_flipped} get another answer and {self.reviews_flipped} another "
            f"review decision; the largest difference of a score is {self.largest_difference:.2g}, where "
            f"{self.tolerance:.2g} may be{tied}"
        )

    def _repr_html_(self) -> str:
        columns = ("rows", "get another answer", "another review decision", "largest difference of a score")
        flipped = f"{self.answers_flipped:,}", f"{self.reviews_flipped:,}"
        return show("Parity", (), columns, [(f"{self.rows:,}", *flipped, f"{self.largest_difference:.2g}")])


def compare(task: Head, expected: Scores, got: Scores, tolerance: float = TOLERANCE) -> Parity:
    """Compares two sets of scores of shape ``(rows, task.outputs)`` row by row."""
    far = task.distances(expected, got)
    is_apart = ~(far <= tolerance)
    other_answer, other_review = (
        task.flipped(expected, got),
        task.needs_review(expected) != task.needs_review(got),
    )
    return Parity(
        rows=len(expected),
        largest_difference=float(far.max(initial=0.0)),
        answers_flipped=int((other_answer & is_apart).sum()),
        reviews_flipped=int((other_review & is_apart).sum()),
        tolerance=tolerance,
        ties=np.flatnonzero((other_answer | other_review) & ~is_apart).tolist(),
    )


def decided_otherwise(task: Head, expected: Scores, got: Scores, tolerance: float = TOLERANCE) -> Flags:
    """Returns which rows get another answer or another review decision.

    A review decision that turns on less than the tolerance is a tie with the threshold, which is the confidence
    of a row of the calibration part.
    """
    is_no_tie = task.distances(expected, got) > tolerance
    other_review = task.needs_review(expected) != task.needs_review(got)
    return np.asarray(task.flipped(expected, got) | (other_review & is_no_tie))


def run_in_batches(run: Run, inputs: Arrays, size: int = MAX_BATCH, at_a_time: int = 1) -> Scores:
    """Scores all rows in batches of ``size``, rows of lengths of their own from short to long.

    Args:
        run: Scores a batch; if there are several at a time, in threads.
        inputs: The rows.
        size: Rows of a batch.
        at_a_time: Batches at a time.
    """
    order = np.argsort(columns.sizes(inputs).sum(1), kind="stable")
    scores = _each(run, inputs, [order[at : at + size] for at in range(0, len(order), size)], at_a_time)
    return np.asarray(scores[np.argsort(order)])


def run_in_sizes(
    run: Run, inputs: Arrays, sizes: Sequence[int], at_a_time: int = 1
) -> tuple[NDArray[np.int_], Scores]:
    """Scores a batch of each size, going round the rows; see ``run_in_batches``.

    Returns:
        Which row each score is of, and the scores.
    """
    ends = np.cumsum(sizes)
    rows = np.arange(ends[-1]) % count(inputs)
    return rows, _each(run, inputs, np.split(rows, ends[:-1]), at_a_time)


def _each(run: Run, inputs: Arrays, batches: Sequence[NDArray[np.int_]], at_a_time: int) -> Scores:
    """Scores batches of rows."""
    if at_a_time == 1:
        return np.concatenate([run(take(inputs, rows)) for rows in batches])
    pool = ThreadPoolExecutor(at_a_time)
    try:
        return np.concatenate(list(pool.map(lambda rows: run(take(inputs, rows)), batches)))
    finally:
        pool.shutdown(cancel_futures=True)


def seconds_of(run: Callable[[Arrays], object], inputs: Arrays) -> float:
    """Times a batch once. Of a few times the least is right: what else a machine does only ever adds to it."""
    start = time.perf_counter()
    run(inputs)
    return time.perf_counter() - start


def take(inputs: Arrays, rows: slice | NDArray[Any]) -> Arrays:
    """Selects rows of a batch."""
    return {name: array[rows] for name, array in inputs.items()}


def count(inputs: Arrays) -> int:
    """Returns the number of rows of a batch."""
    return len(next(iter(inputs.values())))
