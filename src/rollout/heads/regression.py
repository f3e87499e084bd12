"""A number with an interval around it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads import reliability
from rollout.heads.calibration import half_widths
from rollout.heads.head import DIGITS, Declared, Flags, Numbers, Row, Scores
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.one_number import OneNumber
from rollout.heads.parts import Part
from rollout.heads.review_evidence import ReviewEvidence
from rollout.heads.steps import Step
from rollout.heads.truth import Truth

# An answer of a regression counts as another one when it moves by more than this part of its interval.
MOVED = 0.1


class ValueAnswer(NamedTuple):
    """A value, and the two ends of the interval around it."""

    value: float
    interval: tuple[float, float]


class Regression(msgspec.Struct, OneNumber, frozen=True, kw_only=True, tag="regression", tag_field="kind"):
    """A number with an interval around it.

    The module returns the value, shape ``(rows,)`` or ``(rows, 1)``, or the value and a positive spread, shape
    ``(rows, 2)``: then intervals are as wide as the spread says. A variant gives value and half the width of the
    interval, shape ``(rows, 2)``.

    Attributes:
        coverage: Share of targets that intervals are to contain.
        widest: An interval wider than this goes to review, in units of the target; ``None`` sends none.
        half_width: Half the width of an interval for a spread of 1; packing computes it.
        scale: Standard deviation of the calibration targets, the unit in which differences are measured.

    Example:
        >>> Regression(coverage=0.9, widest=20).outputs
        2
    """

    metric: ClassVar[str] = "mean absolute error"
    is_rate: ClassVar[bool] = False
    measure: ClassVar[str] = "interval"
    form: ClassVar[str] = "value"
    usual_loss: ClassVar[str] = "values"
    soft_loss: ClassVar[str] = "values"
    panel: ClassVar[str] = "value"

    coverage: float = 0.9
    widest: float | None = None
    half_width: float = 0.0
    scale: float = 1.0

    @property
    def parts(self) -> Part:
        """The value and its spread; without one, the spread is 1."""
        return Part((2,), (None, 1.0))

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        return "a regression needs values of shape (rows,), or values and positive spreads of shape (rows, 2)"

    @property
    def last_step(self) -> Sequence[Step]:
        """The spread times the half width."""
        return [Step(2, scale=(1.0, self.half_width))]

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not finite numbers, shape ``(rows,)``."""
        if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.number) or not np.isfinite(targets).all():
            raise BundleError("targets must be finite numbers")

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Returns the values, ``float64`` of shape ``(rows,)``."""
        return np.array([truth.value for truth in truths], np.float64)

    def soft_targets(self, scores: Scores) -> NDArray[np.float32]:
        """Returns the value."""
        return scores[:, :1]

    def calibrated(
        self, outputs: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[Self, ReviewEvidence | None]:
        """Makes the intervals as wide as their coverage asks for."""
        half_width = float(half_widths(residuals(outputs, targets), self.coverage))
        if math.isinf(half_width):
            raise BundleError(
                f"{len(targets)} calibration rows are too few for intervals that cover {self.coverage:.1%}: it "
                f"takes {math.ceil(round(self.coverage / (1 - self.coverage), 6))}, since an interval is as wide "
                "as the error of one of them"
            )
        return msgspec.structs.replace(self, half_width=half_width, scale=float(np.std(targets)) or 1.0), None

    @property
    def units(self) -> float | NDArray[np.float64]:
        """The standard deviation of the targets."""
        return self.scale

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get another answer: a value that moves by more than a tenth of its half interval."""
        moved = np.abs(expected[:, 0] - got[:, 0])
        return np.asarray(~(moved <= MOVED * expected[:, 1]))  # NaN is another answer

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows have an interval wider than wanted."""
        if self.widest is None:
            return np.zeros(len(scores), bool)
        return np.asarray(scores[:, 1] * 2 > self.widest)

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How sure each row is: the narrower its interval, the surer."""
        return np.asarray(-scores[:, 1])

    def right(self, scores: Scores, targets: NDArray[Any]) -> Flags:
        """Which rows have their target inside the interval."""
        return np.asarray(np.abs(scores[:, 0] - targets) <= scores[:, 1])

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The absolute error."""
        return np.asarray(np.abs(scores[:, 0].astype(np.float64) - targets))

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The absolute error."""
        return np.asarray(np.abs(answers - targets), np.float64)

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(2,)``, answers."""
        return f"{scores[0]:.4g} ± {scores[1]:.4g}"

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        return f"Answers with a number, and an interval that holds the true one {self.coverage:.1%} of the time."

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference of two scores is a difference of, in words."""
        return "a value, in standard deviations of the targets"

    def measured(self, part: Evaluated) -> Measured:
        """Returns the error, and how often intervals of which width hold the target."""
        figures = {
            "mean_absolute_error": float(self.losses(part.scores, part.targets).mean()),
            "coverage": float(self.right(part.scores, part.targets).mean()),
            "mean_interval_width": float(part.scores[:, 1].mean() * 2),
        }
        widths = half_widths(residuals(*part.calibration), reliability.LEVELS)
        observed = (residuals(part.outputs, part.targets)[:, None] <= widths).mean(0)
        return Measured(figures, reliability.draw_coverage(observed, self.coverage))

    def report(self, figures: Mapping[str, float], review: ReviewEvidence | None) -> tuple[str, dict[str, str]]:
        """Says what intervals are to hold, and what they held."""
        facts = {"coverage asked for": f"{self.coverage:.1%}"}
        if "coverage" in figures:
            facts["coverage observed"] = f"{figures['coverage']:.1%}"
            facts["mean width of an interval"] = f"{figures['mean_interval_width']:.4g}"
        facts["standard deviation of the targets"] = f"{self.scale:.4g}"
        return (
            f"Intervals are to hold {self.coverage:.1%} of the targets, and are as wide as the calibration part "
            "asks for that."
        ), facts

    @property
    def signature(self) -> tuple[object, ...]:
        """A number like any other."""
        return ("Regression",)

    def numbers(self, scores: Scores) -> Numbers:
        """The value and the two ends of its interval."""
        value, half_width = scores.astype(np.float64).T
        return np.asarray(np.stack([value, value - half_width, value + half_width], axis=1).round(DIGITS))

    @property
    def columns(self) -> int:
        """The value and the two ends of its interval."""
        return 3

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """Value and interval."""
        return ValueAnswer

    def answer(self, row: Row) -> Any:
        """Returns the value and its interval."""
        value, low, high = row
        return ValueAnswer(value, (low, high))

    def declared(self) -> dict[str, Declared]:
        """Value and interval."""
        return {"value": Declared("FP32"), "interval": Declared("FP32", (2,))}

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns values or intervals."""
        return numbers[:, 0] if name == "value" else numbers[:, 1:]

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether the other value is within the interval of the champion."""
        return ours[1] <= theirs[0] <= ours[2]

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns how far the values are apart, in half intervals of the champion."""
        value, low, high = ours
        return abs(value - theirs[0]) / max((high - low) / 2, 1e-12)


def residuals(outputs: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
    """Returns how far each value is from its target, in units of its spread.

    Args:
        outputs: Values and spreads, shape ``(rows, 2)``.
        targets: Shape ``(rows,)``.

    Raises:
        BundleError: If a spread is not positive.
    """
    value, spread = outputs.astype(np.float64).T
    if not (spread > 0).all():
        raise BundleError(
            "the module gives a spread that is not positive; let it end in softplus. A second column is the "
            "spread of the first: several targets need their names, Targets(names=[…])"
        )
    return np.asarray(np.abs(targets - value) / spread)
