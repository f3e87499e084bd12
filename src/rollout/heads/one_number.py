"""What kinds have in common that answer with one number and an interval around it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from rollout.heads.doubts import Suspects, wrong_numbers
from rollout.heads.explained import Explained, of_column, require_neither
from rollout.heads.head import Head, Numbers, Row, Scores
from rollout.heads.truth import NO_NUMBER, Truth, is_number
from rollout.judge.features import Features, number


class OneNumber(Head):
    """A ``value`` and its ``interval``, whose truth is a value."""

    __slots__ = ()

    @property
    def widest(self) -> float | None:
        """An interval wider than this goes to review."""
        raise NotImplementedError

    @property
    def review_limit(self) -> float:
        """The width of the interval above which a row goes to review."""
        return math.inf if self.widest is None else self.widest

    @property
    def policy(self) -> str:
        """What goes to review, in words."""
        if self.widest is None:
            return "no prediction goes to review: the task names no widest interval"
        return f"intervals wider than {self.widest:g} go to review"

    def target_in_words(self, target: Any) -> str:
        """Says the value of one row."""
        return f"{target:.6g}"

    def suspects(self, scores: Scores, targets: NDArray[Any]) -> Suspects:
        """Finds values that are probably wrong."""
        numbers = self.numbers(scores)
        half = (numbers[:, -1:] - numbers[:, -2:-1]) / 2
        return wrong_numbers(numbers[:, :1], half, targets[:, None])

    def features(self, numbers: Numbers) -> Features:
        """Returns the value and the width of its interval."""
        return {"value": number(numbers[:, 0]), "width": number(numbers[:, -1] - numbers[:, -2])}

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields that the value is no number."""
        if not is_number(truth.value):
            yield "/value", NO_NUMBER

    def explained(self, row: Row, label: str = "", head: str = "") -> Explained:
        """The value, which of quantiles is the median."""
        require_neither(label, head)
        return of_column("the value", 0)

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        """1 for a value outside of the interval."""
        low, high = answer["interval"]
        return float(truth.value is None or not low <= truth.value <= high)

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        """Returns the value, which of quantiles is the median."""
        return Truth(value=answer["value"])

    def uncertainty(self, answer: Mapping[str, Any]) -> float:
        """Returns more the wider the interval is, beside that which goes to review."""
        low, high = answer["interval"]
        return 0.0 if self.widest is None else (high - low) / ((high - low) + self.widest)

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says value and interval."""
        low, high = answer["interval"]
        return f"{answer['value']:.6g} ({low:.6g} to {high:.6g})"

    def studio_result(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns a number."""
        return [{"type": "number", "value": {"number": answer["value"]}}]

    def studio_truth(self, results: Sequence[Mapping[str, Any]]) -> Truth:
        """Returns the one number."""
        return number_in(results)


def number_in(results: Sequence[Mapping[str, Any]]) -> Truth:
    """Returns the one number in an annotation of Label Studio.

    Raises:
        ValueError: If there is none.
    """
    for each in results:
        if isinstance(number := each.get("number"), int | float):
            return Truth(value=float(number))
    raise ValueError("an annotation has no number")
