"""Parity: does a variant decide as its source does, in batches of every size?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle.columns import sizes
from rollout.bundle.schema import Arrays
from rollout.bundle.task import Flags, Scores, Task

MAX_BATCH = 64
TOLERANCE = 1e-4

Run = Callable[[Arrays], Scores]


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far one set of scores is from another.

    Attributes:
        rows: Rows compared.
        largest_difference: Largest absolute difference of a score, in units of ``task.scale``.
        answers_flipped: Rows that get another answer.
        reviews_flipped: Rows that one of the two would send to review and the other would not.
    """

    rows: int
    largest_difference: float
    answers_flipped: int
    reviews_flipped: int

    @property
    def is_exact(self) -> bool:
        """Whether no decision differs and every score agrees within ``TOLERANCE``."""
        return self.answers_flipped == self.reviews_flipped == 0 and self.largest_difference <= TOLERANCE

    def __str__(self) -> str:
        return (
            f"of {self.rows} rows {self.answers_flipped} get another answer and {self.reviews_flipped} another "
            f"review decision; the largest difference of a score is {self.largest_difference:.2g}"
        )


def compare(task: Task, expected: Scores, got: Scores) -> Parity:
    """Compares two sets of scores of shape ``(rows, task.outputs)`` row by row."""
    return Parity(
        rows=len(expected),
        largest_difference=float(distances(task, expected, got).max(initial=0.0)),
        answers_flipped=int(task.flipped(expected, got).sum()),
        reviews_flipped=int((task.needs_review(expected) != task.needs_review(got)).sum()),
    )


def decided_otherwise(task: Task, expected: Scores, got: Scores) -> Flags:
    """Returns which rows get another answer or another review decision.

    A review decision that turns on less than ``TOLERANCE`` of a score is a tie with the threshold, which is the
    confidence of a row of the calibration part.
    """
    is_no_tie = distances(task, expected, got) > TOLERANCE
    other_review = task.needs_review(expected) != task.needs_review(got)
    return np.asarray(task.flipped(expected, got) | (other_review & is_no_tie))


def distances(task: Task, expected: Scores, got: Scores) -> NDArray[Any]:
    """Returns the largest difference in each row; one that is not a number counts as infinite."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nan_to_num(np.abs(expected - got) / task.scale, nan=np.inf).max(-1))


def run_in_batches(run: Run, inputs: Arrays, size: int = MAX_BATCH) -> Scores:
    """Scores all rows in batches of ``size``, rows of lengths of their own from short to long."""
    order = np.argsort(sizes(inputs).sum(1), kind="stable")
    scores = [run(take(inputs, order[at : at + size])) for at in range(0, len(order), size)]
    return np.asarray(np.concatenate(scores)[np.argsort(order)])


def run_in_every_size(run: Run, inputs: Arrays) -> tuple[NDArray[np.int_], Scores]:
    """Scores batches of every size from 1 to ``MAX_BATCH``, going round the rows.

    Returns:
        Which row each score is of, and the scores.
    """
    ends = np.cumsum(np.arange(1, MAX_BATCH + 1))
    rows = np.arange(ends[-1]) % count(inputs)
    return rows, np.concatenate([run(take(inputs, cut)) for cut in np.split(rows, ends[:-1])])


def take(inputs: Arrays, rows: slice | NDArray[Any]) -> Arrays:
    """Selects rows of a batch."""
    return {name: array[rows] for name, array in inputs.items()}


def count(inputs: Arrays) -> int:
    """Returns the number of rows of a batch."""
    return len(next(iter(inputs.values())))
