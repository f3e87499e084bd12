"""Several numbers by name, each with an interval around it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError, step_to
from rollout.heads import reliability
from rollout.heads.calibration import half_widths
from rollout.heads.conformal import joint_half_widths, rows_needed
from rollout.heads.doubts import Suspects, wrong_numbers
from rollout.heads.explained import Explained, of_column, require_name
from rollout.heads.head import DIGITS, Declared, Flags, Head, Numbers, Row, Scores, Translation
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.parts import Part
from rollout.heads.regression import MOVED
from rollout.heads.review_evidence import ReviewEvidence
from rollout.heads.steps import Step
from rollout.heads.truth import NO_NUMBER, Truth, is_number
from rollout.judge.features import Features, number


class ValuesAnswer(NamedTuple):
    """The value of each target, and the two ends of the interval around it."""

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]


class Targets(msgspec.Struct, Head, frozen=True, kw_only=True, tag="targets", tag_field="kind"):
    """Several numbers by name, each with an interval around it.

    The module returns a value for each target, shape ``(rows, targets)``; with ``spreads``, the values and behind
    them a positive spread for each, shape ``(rows, 2 * targets)``: then intervals are as wide as the spreads say.
    A variant gives the same, with half the width of each interval in the place of its spread.

    Attributes:
        names: The targets, in the order of the values.
        spreads: Whether the module gives spreads, too.
        coverage: Share of rows whose target an interval is to contain: of each target, or of all together.
        joint: Whether all targets of a row are to lie in their intervals together.
        widest: An interval wider than this goes to review, in units of the target: one for all, or by target;
            ``None`` sends none.
        half_widths: Half the width of the interval of each target for a spread of 1; packing computes them.
        scales: Standard deviation of the calibration targets, the units in which differences are measured.

    Example:
        >>> Targets(names=["low", "high"], widest={"high": 20}).outputs
        2
    """

    metric: ClassVar[str] = "mean absolute error in standard deviations"
    is_rate: ClassVar[bool] = False
    measure: ClassVar[str] = "intervals"
    form: ClassVar[str] = "values"
    usual_loss: ClassVar[str] = "values"
    panel: ClassVar[str] = "values"

    names: list[str]
    spreads: bool = False
    coverage: float = 0.9
    joint: bool = False
    widest: float | dict[str, float] | None = None
    half_widths: list[float] = []
    scales: list[float] = []

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError("there must be names of targets, each of them once")

    @property
    def parts(self) -> Part:
        """The values, and their spreads where there are any."""
        return Part((len(self.names) * (2 if self.spreads else 1),))

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        count = len(self.names)
        if self.spreads:
            return f"{count} targets need values, and behind them positive spreads, of shape (rows, {2 * count})"
        return (
            f"{count} targets need values of shape (rows, {count}); give spreads=True where the module gives a "
            "spread for each as well"
        )

    @property
    def last_step(self) -> Sequence[Step]:
        """The spreads times the half widths."""
        values = Step(len(self.names))
        if not self.spreads:
            return [values]
        return [values, Step(len(self.names), scale=self.half_widths or 1.0)]

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not finite numbers, shape ``(rows, targets)``."""
        is_number = targets.shape[1:] == (len(self.names),) and np.issubdtype(targets.dtype, np.number)
        if not is_number or not np.isfinite(targets).all():
            raise BundleError(f"targets must be finite numbers of shape (rows, {len(self.names)})")

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Returns the values, ``float64`` of shape ``(rows, targets)``."""
        return np.array([[(truth.values or {})[name] for name in self.names] for truth in truths], np.float64)

    def calibrated(
        self, outputs: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[Self, ReviewEvidence | None]:
        """Makes the intervals as wide as their coverage asks for."""
        if isinstance(self.widest, dict) and (unknown := sorted(set(self.widest) - set(self.names))):
            raise BundleError(f"{unknown[0]} has a widest interval, and is none of the targets")
        far = self._residuals(outputs, targets)
        if self.joint:
            widths = joint_half_widths(far, self.coverage)
        else:
            needed = rows_needed(self.coverage)
            if len(far) < needed:
                raise BundleError(
                    f"{len(far)} calibration rows are too few for intervals that cover {self.coverage:.1%}: it "
                    f"takes {needed}, since an interval is as wide as the error of one of them"
                )
            widths = np.array([half_widths(column, self.coverage) for column in far.T])
        scales = np.std(targets, axis=0)
        return msgspec.structs.replace(
            self, half_widths=widths.tolist(), scales=np.where(scales > 0, scales, 1.0).tolist()
        ), None

    @property
    def units(self) -> float | NDArray[np.float64]:
        """The standard deviation of each target."""
        return np.tile(self._scales, 2 if self.spreads else 1)

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get another answer: a value that moves by more than a tenth of its half interval."""
        (value, half), (other, _) = self._split(expected), self._split(got)
        return np.asarray(~(np.abs(value - other) <= MOVED * half).all(1))  # NaN is another answer

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows have an interval wider than wanted."""
        return np.asarray((2 * self._split(scores)[1] > self._widest).any(1))

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How sure each row is: the narrower its widest interval, in standard deviations, the surer."""
        return np.asarray(-(self._split(scores)[1] / self._scales).max(1), np.float32)

    def right(self, scores: Scores, targets: NDArray[Any]) -> Flags:
        """Which rows have all their targets inside the intervals."""
        return np.asarray(self._is_inside(scores, targets).all(1))

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The absolute error, in standard deviations, in the mean of the targets."""
        return self.answer_losses(self._split(scores)[0], targets)

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The absolute error, in standard deviations, in the mean of the targets."""
        return np.asarray((np.abs(answers - targets) / self._scales).mean(1), np.float64)

    def mean_loss(self, figures: Mapping[str, float]) -> float:
        """Returns the mean absolute error in standard deviations."""
        return figures["mean_scaled_error"]

    def target_in_words(self, target: Any) -> str:
        """Says the values of one row."""
        return ", ".join(f"{name} {value:.6g}" for name, value in zip(self.names, target, strict=True))

    def suspects(self, scores: Scores, targets: NDArray[Any]) -> Suspects:
        """Finds rows with a value that is probably wrong."""
        return wrong_numbers(*self._split(scores), targets)

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(outputs,)``, answers."""
        value, half = (part[0] for part in self._split(scores[None]))
        return ", ".join(
            f"{name} {one:.4g} ± {width:.4g}" for name, one, width in zip(self.names, value, half, strict=True)
        )

    @property
    def review_limit(self) -> float:
        """The width of an interval above which a row goes to review, where it is the same for all."""
        return math.inf if self.widest is None or isinstance(self.widest, dict) else self.widest

    @property
    def policy(self) -> str:
        """What goes to review, in words."""
        if isinstance(self.widest, dict) and self.widest:
            each = ", ".join(f"{width:g} for {name}" for name, width in self.widest.items())
            return f"predictions with a wider interval than {each} go to review"
        if self.widest is None or isinstance(self.widest, dict):
            return "no prediction goes to review: the task names no widest interval"
        return f"predictions with an interval wider than {self.widest:g} go to review"

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        who = "together hold the true ones" if self.joint else "each hold the true one"
        return (
            f"Answers with {len(self.names)} numbers, {', '.join(self.names)}, and intervals that {who} "
            f"{self.coverage:.1%} of the time."
        )

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference of two scores is a difference of, in words."""
        return "a value, in standard deviations of its target"

    def measured(self, part: Evaluated) -> Measured:
        """Returns the errors, and how often intervals of which width hold their targets."""
        value, half = self._split(part.scores)
        inside = self._is_inside(part.scores, part.targets)
        figures = {
            "mean_scaled_error": float(self.losses(part.scores, part.targets).mean()),
            "coverage": float(inside.mean()),
            "joint_coverage": float(inside.all(1).mean()),
        }
        for place, name in enumerate(self.names):
            figures[f"mean_absolute_error_{name}"] = float(np.abs(value - part.targets)[:, place].mean())
            figures[f"coverage_{name}"] = float(inside[:, place].mean())
            figures[f"mean_interval_width_{name}"] = float(2 * half[:, place].mean())
        before, now = self._residuals(*part.calibration), self._residuals(part.outputs, part.targets)
        if self.joint:
            scales = np.array(self.half_widths)
            before, now = ((far / scales).max(1, keepdims=True) for far in (before, now))
        held = [
            (far[:, None] <= half_widths(own, reliability.LEVELS)).mean(0)
            for own, far in zip(before.T, now.T, strict=True)
        ]
        return Measured(figures, reliability.draw_coverage(np.mean(held, axis=0), self.coverage))

    def report(self, figures: Mapping[str, float], review: ReviewEvidence | None) -> tuple[str, dict[str, str]]:
        """Says what intervals are to hold, and what they held."""
        facts = {"coverage asked for": f"{self.coverage:.1%}{' of all targets together' if self.joint else ''}"}
        if "coverage" in figures:
            facts["coverage observed"] = f"{figures['joint_coverage' if self.joint else 'coverage']:.1%}"
        for name, scale in zip(self.names, self._scales, strict=True):
            facts[f"standard deviation of {name}"] = f"{scale:.4g}"
            if f"coverage_{name}" in figures:
                facts[f"intervals of {name}"] = (
                    f"hold {figures[f'coverage_{name}']:.1%}, {figures[f'mean_interval_width_{name}']:.4g} wide"
                )
        what = "of the rows with all their targets" if self.joint else "of the targets, each of its own"
        return (
            f"Intervals are to hold {self.coverage:.1%} {what}, and are as wide as the calibration part asks "
            "for that."
        ), facts

    @property
    def signature(self) -> tuple[object, ...]:
        """The targets, in any order."""
        return ("Targets", *sorted(self.names))

    def translation(self, public: Head, meanings: Mapping[str, str]) -> Translation | None:
        """Returns what puts targets in the order of ``public``."""
        theirs = getattr(public, "names", self.names)
        if theirs == self.names:
            return None
        count = len(self.names)
        places = [part * count + self.names.index(name) for part in range(3) for name in theirs]
        return lambda numbers: numbers[:, places]

    def numbers(self, scores: Scores) -> Numbers:
        """All values, all lower ends and all upper ends."""
        value, half = self._split(scores)
        return np.concatenate([value, value - half, value + half], axis=1).round(DIGITS)

    @property
    def columns(self) -> int:
        """Three for each target."""
        return 3 * len(self.names)

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """Values and intervals."""
        return ValuesAnswer

    def answer(self, row: Row) -> Any:
        """Returns values and intervals by target."""
        count = len(self.names)
        ends = zip(row[count : 2 * count], row[2 * count :], strict=True)
        return ValuesAnswer(
            dict(zip(self.names, row[:count], strict=True)), dict(zip(self.names, ends, strict=True))
        )

    def features(self, numbers: Numbers) -> Features:
        """Returns the value of each target."""
        return {name: number(numbers[:, place]) for place, name in enumerate(self.names)}

    def explained(self, row: Row, label: str = "", head: str = "") -> Explained:
        """The value of the first target, or of the one that ``label`` names."""
        require_name("head", head, [""])
        asked = require_name("label", label or self.names[0], self.names)
        return of_column(f"the value of {asked}", self.names.index(asked), asked)

    def declared(self) -> dict[str, Declared]:
        """Values and intervals, in the order of the targets."""
        count = len(self.names)
        return {"values": Declared("FP32", (count,)), "intervals": Declared("FP32", (count, 2))}

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns values or intervals."""
        value, low, high = np.split(numbers, 3, axis=1)
        return value if name == "values" else np.stack([low, high], axis=2)

    def keys_of(self, column: str) -> Sequence[str] | None:
        """Values and intervals have a name for each target."""
        return self.names if column in {"values", "intervals"} else None

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether each of the other values is within the interval of the champion."""
        value, low, high = np.split(np.asarray(ours), 3)
        other = np.asarray(theirs)[: len(value)]
        return bool(((low <= other) & (other <= high)).all())

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns how far the values of a target are apart at most, in half intervals of the champion."""
        value, low, high = np.split(np.asarray(ours), 3)
        far = np.abs(value - np.asarray(theirs)[: len(value)])
        return float((far / np.maximum((high - low) / 2, 1e-12)).max(initial=0.0))

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields targets that are missing, that there are not, or whose value is no number."""
        said = truth.values or {}
        for name in said:
            if name not in self.names:
                yield f"/values{step_to(name)}", f"is none of {', '.join(self.names)}"
        for name in self.names:
            if name not in said:
                yield f"/values{step_to(name)}", "is required"
            elif not is_number(said[name]):
                yield f"/values{step_to(name)}", NO_NUMBER

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        """The share of targets outside of their intervals."""
        said = truth.values or {}
        outside = [
            not low <= said.get(name, math.nan) <= high for name, (low, high) in answer["intervals"].items()
        ]
        return sum(outside) / len(outside)

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        """Returns the values."""
        return Truth(values=answer["values"])

    def truth_distance(self, one: Truth, other: Truth) -> float:
        """The share of targets with another value."""
        first, second = one.values or {}, other.values or {}
        return sum(first.get(name) != second.get(name) for name in self.names) / len(self.names)

    def uncertainty(self, answer: Mapping[str, Any]) -> float:
        """Returns more the wider the widest interval is, beside that which goes to review."""
        shares = [
            (high - low) / ((high - low) + limit)
            for (low, high), limit in zip(answer["intervals"].values(), self._widest.tolist(), strict=True)
            if math.isfinite(limit)
        ]
        return max(shares, default=0.0)

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says values and intervals."""
        return ", ".join(
            f"{name} {answer['values'][name]:.6g} ({low:.6g} to {high:.6g})"
            for name, (low, high) in answer["intervals"].items()
        )

    def studio_result(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns a number for each target, asked for under its name."""
        return [
            {"type": "number", "value": {"number": value}, "from_name": name}
            for name, value in answer["values"].items()
        ]

    def studio_truth(self, results: Sequence[Mapping[str, Any]]) -> Truth:
        """Returns the numbers, each asked for under the name of its target."""
        found = {
            str(each.get("from_name")): float(each["number"])
            for each in results
            if isinstance(each.get("number"), int | float)
        }
        if lacking := [name for name in self.names if name not in found]:
            raise ValueError(f"an annotation has no number for {', '.join(lacking)}")
        return Truth(values={name: found[name] for name in self.names})

    @property
    def _scales(self) -> NDArray[np.float64]:
        return np.array(self.scales or [1.0] * len(self.names))

    @property
    def _widest(self) -> NDArray[np.float64]:
        widest = self.widest
        by_name = widest if isinstance(widest, dict) else dict.fromkeys(self.names, widest)
        return np.array([math.inf if (wide := by_name.get(name)) is None else wide for name in self.names])

    def _split(self, scores: Scores) -> tuple[Numbers, Numbers]:
        """Returns values and half widths, both of shape ``(rows, targets)``."""
        columns = scores.astype(np.float64)
        if self.spreads:
            value, half = np.split(columns, 2, axis=1)
            return value, half
        return columns, np.broadcast_to(np.array(self.half_widths or [0.0] * len(self.names)), columns.shape)

    def _is_inside(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.bool_]:
        value, half = self._split(scores)
        return np.asarray(np.abs(value - targets) <= half)

    def _residuals(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
        """Returns how far each value is from its target, in units of its spread; shape ``(rows, targets)``."""
        columns = outputs.astype(np.float64)
        if not self.spreads:
            return np.asarray(np.abs(targets - columns))
        value, spread = np.split(columns, 2, axis=1)
        if not (spread > 0).all():
            raise BundleError("the module gives a spread that is not positive; let it end in softplus")
        return np.asarray(np.abs(targets - value) / spread)
