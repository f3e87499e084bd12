"""Values at declared quantiles, and an interval between the outermost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads import reliability
from rollout.heads.calibration import half_widths
from rollout.heads.conformal import quantile_margin, widen
from rollout.heads.head import DIGITS, Declared, Flags, Numbers, Row, Scores
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.one_number import OneNumber
from rollout.heads.parts import Part
from rollout.heads.regression import MOVED
from rollout.heads.review_evidence import ReviewEvidence
from rollout.heads.truth import Truth

MEDIAN = 0.5


class QuantilesAnswer(NamedTuple):
    """The median, the value at each quantile as the model says it, and the two ends of the interval."""

    value: float
    quantiles: dict[str, float]
    interval: tuple[float, float]


class Quantiles(msgspec.Struct, OneNumber, frozen=True, kw_only=True, tag="quantiles", tag_field="kind"):
    """Values at declared quantiles, and an interval between the outermost that holds what it says.

    The module returns a value for each quantile, shape ``(rows, levels)``, as pinball loss trains it; a variant
    gives the same. Where they cross, they are answered in ascending order, which is never worse (Chernozhukov,
    Fernández-Val & Galichon, "Quantile and Probability Curves Without Crossing", 2010).

    Attributes:
        levels: The quantiles, ascending, between 0 and 1.
        coverage: Share of targets that intervals are to contain; without, the outermost levels say it.
        widest: An interval wider than this goes to review, in units of the target; ``None`` sends none.
        margin: By how much the outermost quantiles move outwards to become the interval; packing computes it.
        scale: Standard deviation of the calibration targets, the unit in which differences are measured.

    Example:
        >>> Quantiles(levels=[0.1, 0.5, 0.9]).covers
        0.8
    """

    metric: ClassVar[str] = "mean pinball loss"
    is_rate: ClassVar[bool] = False
    measure: ClassVar[str] = "interval"
    form: ClassVar[str] = "value"
    soft_loss: ClassVar[str] = "values"
    panel: ClassVar[str] = "value"

    levels: list[float]
    coverage: float | None = None
    widest: float | None = None
    margin: float = 0.0
    scale: float = 1.0

    @property
    def covers(self) -> float:
        """Share of targets that intervals are to contain."""
        return round(self.levels[-1] - self.levels[0], 9) if self.coverage is None else self.coverage

    @property
    def parts(self) -> Part:
        """A value for each quantile."""
        return Part((len(self.levels),))

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        return f"{len(self.levels)} quantiles need values of shape (rows, {len(self.levels)})"

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not finite numbers, shape ``(rows,)``."""
        if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.number) or not np.isfinite(targets).all():
            raise BundleError("targets must be finite numbers")

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Returns the values, ``float64`` of shape ``(rows,)``."""
        return np.array([truth.value for truth in truths], np.float64)

    def soft_targets(self, scores: Scores) -> NDArray[np.float32]:
        """Returns the values at all quantiles."""
        return scores

    def calibrated(
        self, outputs: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[Self, ReviewEvidence | None]:
        """Moves the outermost quantiles by as much as the coverage asks for."""
        ascending = all(low < high for low, high in zip([0.0, *self.levels], [*self.levels, 1.0], strict=True))
        if len(self.levels) < 2 or not ascending:
            raise BundleError(
                f"levels must be two quantiles or more, ascending between 0 and 1, not {self.levels}"
            )
        said = _sorted(outputs)
        margin = quantile_margin(said[:, 0], said[:, -1], targets, self.covers)
        return msgspec.structs.replace(self, margin=margin, scale=float(np.std(targets)) or 1.0), None

    @property
    def units(self) -> float | NDArray[np.float64]:
        """The standard deviation of the targets."""
        return self.scale

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get another answer: a quantile that moves by more than a tenth of half the interval."""
        low, high = self._interval(expected)
        moved = np.abs(_sorted(expected) - _sorted(got)).max(1)
        # Where the interval is a point, what is nothing but rounding does not count.
        return np.asarray(~(moved <= np.maximum(MOVED * (high - low) / 2, 1e-6 * self.scale)))

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows have an interval wider than wanted."""
        if self.widest is None:
            return np.zeros(len(scores), bool)
        low, high = self._interval(scores)
        return np.asarray(high - low > self.widest)

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How sure each row is: the narrower its interval, the surer."""
        low, high = self._interval(scores)
        return np.asarray(low - high, np.float32)

    def right(self, scores: Scores, targets: NDArray[Any]) -> Flags:
        """Which rows have their target inside the interval."""
        low, high = self._interval(scores)
        return np.asarray((low <= targets) & (targets <= high))

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The pinball loss in the mean of the quantiles (Koenker & Bassett, "Regression Quantiles", 1978)."""
        levels, error = np.array(self.levels), targets[:, None] - _sorted(scores)
        return np.asarray(np.maximum(levels * error, (levels - 1) * error).mean(1))

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The pinball loss of one value as every quantile."""
        return self.losses(np.repeat(answers[:, None], len(self.levels), axis=1), targets)

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(levels,)``, answers."""
        said = zip(self.levels, _sorted(scores[None])[0], strict=True)
        return ", ".join(f"{value:.4g} at {level:g}" for level, value in said)

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        return (
            f"Answers with the quantiles {', '.join(self._names)} of a number, and an interval that holds the "
            f"true one {self.covers:.1%} of the time."
        )

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference of two scores is a difference of, in words."""
        return "a value, in standard deviations of the targets"

    def measured(self, part: Evaluated) -> Measured:
        """Returns the loss, how often each quantile lies above the target, and how often intervals hold it."""
        low, high = self._interval(part.scores)
        figures = {
            "mean_pinball_loss": float(self.losses(part.scores, part.targets).mean()),
            "coverage": float(self.right(part.scores, part.targets).mean()),
            "mean_interval_width": float((high - low).mean()),
        }
        above = (part.targets[:, None] <= _sorted(part.scores)).mean(0)
        figures |= {f"share_below_{name}": float(share) for name, share in zip(self._names, above, strict=True)}
        margins = half_widths(self._outside(*part.calibration), reliability.LEVELS)
        observed = (self._outside(part.outputs, part.targets)[:, None] <= margins).mean(0)
        return Measured(figures, reliability.draw_coverage(observed, self.covers))

    def report(self, figures: Mapping[str, float], review: ReviewEvidence | None) -> tuple[str, dict[str, str]]:
        """Says what intervals are to hold, and what they held."""
        facts = {"coverage asked for": f"{self.covers:.1%}"}
        if "coverage" in figures:
            facts["coverage observed"] = f"{figures['coverage']:.1%}"
            facts["mean width of an interval"] = f"{figures['mean_interval_width']:.4g}"
            for name in self._names:
                facts[f"targets below quantile {name}"] = f"{figures[f'share_below_{name}']:.1%}"
        facts["standard deviation of the targets"] = f"{self.scale:.4g}"
        where = "inwards" if self.margin < 0 else "outwards"
        return (
            f"Intervals are to hold {self.covers:.1%} of the targets: the outermost quantiles, moved {where} by "
            f"{abs(self.margin):.4g}, as the calibration part asks for. The quantiles are what the model says."
        ), facts

    @property
    def signature(self) -> tuple[object, ...]:
        """The levels."""
        return ("Quantiles", *self.levels)

    def numbers(self, scores: Scores) -> Numbers:
        """The median, all quantiles in order, and the two ends of the interval."""
        said = _sorted(scores)
        median = np.array([np.interp(MEDIAN, self.levels, row) for row in said]).reshape(-1, 1)
        low, high = self._interval(scores)
        return np.concatenate([median, said, low[:, None], high[:, None]], axis=1).round(DIGITS)

    @property
    def columns(self) -> int:
        """The median, one for each level, and two."""
        return 3 + len(self.levels)

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """Median, quantiles and interval."""
        return QuantilesAnswer

    def answer(self, row: Row) -> Any:
        """Returns the median, the quantiles by level, and the interval."""
        value, *said, low, high = row
        return QuantilesAnswer(value, dict(zip(self._names, said, strict=True)), (low, high))

    def declared(self) -> dict[str, Declared]:
        """Median, quantiles in their order, and interval."""
        return {
            "value": Declared("FP32"),
            "quantiles": Declared("FP32", (len(self.levels),)),
            "interval": Declared("FP32", (2,)),
        }

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns medians, quantiles or intervals."""
        return {"value": numbers[:, 0], "quantiles": numbers[:, 1:-2], "interval": numbers[:, -2:]}[name]

    def keys_of(self, column: str) -> Sequence[str] | None:
        """Quantiles have a name for each level."""
        return self._names if column == "quantiles" else None

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether the other median is within the interval of the champion."""
        return ours[-2] <= theirs[0] <= ours[-1]

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns how far the quantiles are apart at most, in half intervals of the champion."""
        far = np.abs(np.subtract(ours[1:-2], theirs[1:-2])).max(initial=0.0)
        return float(far / max((ours[-1] - ours[-2]) / 2, 1e-12))

    @property
    def _names(self) -> list[str]:
        return [str(level) for level in self.levels]

    def _interval(self, scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        said = _sorted(scores)
        return widen(said[:, 0], said[:, -1], self.margin)

    def _outside(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
        """Returns how far each target lies outside of the outermost quantiles, negative inside."""
        said = _sorted(outputs)
        return np.asarray(np.maximum(said[:, 0] - targets, targets - said[:, -1]))


def _sorted(scores: Scores) -> NDArray[np.float64]:
    return np.sort(scores.astype(np.float64), axis=1)
