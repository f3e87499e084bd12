"""What a version makes of rows, in columns; a row of them becomes an object only where it is handled alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.errors import RolloutError


class Decision(NamedTuple):
    """What a version makes of one row.

    Attributes:
        best: Index of the most likely class; 0 for a regression.
        numbers: The score of each class, or the value and the two ends of its interval; to six decimals.
        needs_review: Whether a person should look at it.
    """

    best: int
    numbers: list[float]
    needs_review: bool


class Decisions:
    """What a version makes of some rows.

    Args:
        best: Indexes of the most likely classes, ``int64`` of shape ``(rows,)``; 0 for a regression.
        numbers: ``float64`` of shape ``(rows, outputs)``: the score of each class, or the value and the two ends
            of its interval; to six decimals.
        needs_review: Which rows a person should look at, ``bool`` of shape ``(rows,)``.
        errors: The rows that failed, by index, and why; what stands of them in the columns means nothing.
    """

    __slots__ = ("best", "errors", "needs_review", "numbers")

    def __init__(
        self,
        best: NDArray[np.int64],
        numbers: NDArray[np.float64],
        needs_review: NDArray[np.bool_],
        errors: Mapping[int, RolloutError] | None = None,
    ) -> None:
        self.best = best
        self.numbers = numbers
        self.needs_review = needs_review
        self.errors: dict[int, RolloutError] = dict(errors) if errors else {}

    @classmethod
    def failed(cls, rows: int, error: RolloutError) -> Decisions:
        """Returns rows that all failed alike."""
        columns = np.zeros(rows, np.int64), np.full((rows, 0), np.nan), np.zeros(rows, bool)
        return cls(*columns, dict.fromkeys(range(rows), error.alone()))

    @classmethod
    def placed(cls, parts: Iterable[tuple[Sequence[int], Decisions]], rows: int) -> Decisions:
        """Puts parts together, each with the places that its rows have among all.

        A later part replaces an earlier one. Versions may have different numbers of outputs: what a row lacks is
        NaN.
        """
        parts = list(parts)
        width = max((part.numbers.shape[1] for _, part in parts), default=0)
        whole = cls(np.zeros(rows, np.int64), np.full((rows, width), np.nan), np.zeros(rows, bool))
        for places, part in parts:
            whole.best[places] = part.best
            whole.needs_review[places] = part.needs_review
            whole.numbers[places, : part.numbers.shape[1]] = part.numbers
            if whole.errors:
                for place in places:
                    whole.errors.pop(place, None)
            whole.errors.update((places[index], error) for index, error in part.errors.items())
        return whole

    def __len__(self) -> int:
        return len(self.best)

    def row(self, index: int) -> Decision:
        """Returns one row as an object."""
        return Decision(int(self.best[index]), self.numbers[index].tolist(), bool(self.needs_review[index]))

    def part(self, start: int, stop: int) -> Decisions:
        """Returns the rows from ``start`` up to ``stop``, as a view."""
        if start == 0 and stop == len(self):
            return self
        errors = {index - start: error for index, error in self.errors.items() if start <= index < stop}
        return Decisions(self.best[start:stop], self.numbers[start:stop], self.needs_review[start:stop], errors)

    def rows(self, places: Sequence[int], outputs: int | None = None) -> Decisions:
        """Returns some rows, none of which failed, of a version with so many outputs; without, all outputs."""
        picked = np.array(places, np.intp)
        return Decisions(self.best[picked], self.numbers[picked, :outputs], self.needs_review[picked])

    @property
    def confidences(self) -> NDArray[np.float64]:
        """The score of the most likely class of each row, shape ``(rows,)``."""
        return np.asarray(self.numbers.max(-1))
