"""What a version makes of rows, in columns; a row of them becomes an object only where it is handled alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.parity import count, take
from rollout.bundle.schema import Arrays
from rollout.errors import PredictionFailedError, RolloutError
from rollout.heads.head import Head, Scores, Translation


class Decision(NamedTuple):
    """What a version makes of one row.

    Attributes:
        numbers: What goes out, in the layout of the head; to six decimals.
        needs_review: Whether a person should look at it.
    """

    numbers: list[float]
    needs_review: bool


class Decisions:
    """What a version makes of some rows.

    Args:
        numbers: What goes out, ``float64`` of shape ``(rows, head.columns)`` in the layout of the head; to six
            decimals.
        needs_review: Which rows a person should look at, ``bool`` of shape ``(rows,)``.
        errors: The rows that failed, by index, and why; what stands of them in the columns means nothing.
    """

    __slots__ = ("errors", "needs_review", "numbers")

    def __init__(
        self,
        numbers: NDArray[np.float64],
        needs_review: NDArray[np.bool_],
        errors: Mapping[int, RolloutError] | None = None,
    ) -> None:
        self.numbers = numbers
        self.needs_review = needs_review
        self.errors: dict[int, RolloutError] = dict(errors) if errors else {}

    @classmethod
    def failed(cls, rows: int, error: RolloutError) -> Decisions:
        """Returns rows that all failed alike."""
        return cls(np.empty((rows, 0)), np.zeros(rows, bool), dict.fromkeys(range(rows), error.alone()))

    @classmethod
    def placed(cls, parts: Iterable[tuple[Sequence[int], Decisions]], rows: int) -> Decisions:
        """Puts parts together, each with the places that its rows have among all.

        A later part replaces an earlier one. Versions may have different numbers of columns: what a row lacks is
        NaN.
        """
        parts = list(parts)
        width = max((part.numbers.shape[1] for _, part in parts), default=0)
        whole = cls(np.full((rows, width), np.nan), np.zeros(rows, bool))
        for places, part in parts:
            whole.needs_review[places] = part.needs_review
            whole.numbers[places, : part.numbers.shape[1]] = part.numbers
            if whole.errors:
                for place in places:
                    whole.errors.pop(place, None)
            whole.errors.update((places[index], error) for index, error in part.errors.items())
        return whole

    def __len__(self) -> int:
        return len(self.needs_review)

    def row(self, index: int) -> Decision:
        """Returns one row as an object."""
        return Decision(self.numbers[index].tolist(), bool(self.needs_review[index]))

    def part(self, start: int, stop: int) -> Decisions:
        """Returns the rows from ``start`` up to ``stop``, as a view."""
        if start == 0 and stop == len(self):
            return self
        errors = {index - start: error for index, error in self.errors.items() if start <= index < stop}
        return Decisions(self.numbers[start:stop], self.needs_review[start:stop], errors)

    def rows(self, places: Sequence[int], columns: int | None = None) -> Decisions:
        """Returns some rows, none of which failed, of a version with so many columns; without, all columns."""
        picked = np.array(places, np.intp)
        return Decisions(self.numbers[picked, :columns], self.needs_review[picked])

    def translated(self, translate: Translation | None) -> Decisions:
        """Returns them in another layout, where it is another."""
        if translate is None or len(self.errors) == len(self):
            return self
        return Decisions(translate(self.numbers), self.needs_review, self.errors)


def decide(head: Head, scores: Scores) -> Decisions:
    """Turns scores into decisions; those that are not finite numbers fail alone.

    Whether a row needs review is decided on the exact scores; those that go out are rounded to six decimals,
    which is what single precision can vouch for.

    Args:
        head: What is decided.
        scores: Shape ``(rows, head.outputs)``.

    Raises:
        ValueError: If they have another shape.
    """
    if scores.shape[1:] != (head.outputs,):
        raise ValueError(f"scores of shape {scores.shape} for {head.outputs} outputs")
    decisions = Decisions(head.numbers(scores), head.needs_review(scores))
    can_go_out = head.can_go_out(scores)
    if not can_go_out.all():
        error = PredictionFailedError("the model's scores for this input are not finite numbers")
        decisions.errors = dict.fromkeys(np.flatnonzero(~can_go_out.all(-1)).tolist(), error)
    return decisions


def run_or_bisect(
    run: Callable[[Arrays], Decisions], arrays: Arrays, fault: Callable[[Exception], RolloutError]
) -> Decisions:
    """Runs a batch; if it fails, runs its halves, so that the row at fault is found and fails alone.

    Args:
        run: Runs a batch.
        arrays: The rows.
        fault: Says what is told of a row that failed.
    """
    rows = count(arrays)
    try:
        decisions = run(arrays)
        if len(decisions) != rows:
            raise ValueError(f"{len(decisions)} results for {rows} rows")
        return decisions
    except Exception as error:
        if rows == 1:
            return Decisions.failed(1, fault(error))
        halves = range(rows // 2), range(rows // 2, rows)
        return Decisions.placed(
            [(half, run_or_bisect(run, take(arrays, slice(half.start, half.stop)), fault)) for half in halves],
            rows,
        )
