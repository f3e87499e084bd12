"""What a model answers, what counts as the same answer, and what counts as unsure."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError

Scores = NDArray[np.float32]
Flags = NDArray[np.bool_]

# An answer of a regression counts as another one when it moves by more than this part of its interval.
MOVED = 0.1
# A confidence that no prediction reaches, as a number that JSON has.
UNREACHED = 2.0


class Classification(msgspec.Struct, frozen=True, kw_only=True, tag="classification", tag_field="kind"):
    """One of several classes. The module returns logits; a variant gives scores that sum to 1.

    Of two labels, the module may return a single logit, shape ``(rows,)`` or ``(rows, 1)``, as
    ``BCEWithLogitsLoss`` trains it: it speaks for the second label.

    Attributes:
        labels: The classes, in the order of the logits.
        risk: Largest error wanted among predictions that nobody reviews.
        delta: Probability with which that guarantee may fail.
        temperature: What logits are divided by before the softmax; packing computes it.
        review_threshold: A confidence below it goes to review. Packing computes it from ``risk`` unless you give
            your own; above 1 everything goes to review, as where no threshold would keep ``risk``.

    Example:
        >>> Classification(labels=["no", "yes"], risk=0.05).outputs
        2
    """

    labels: list[str]
    risk: float = 0.02
    delta: float = 0.05
    temperature: float = 1.0
    review_threshold: float | None = None

    @property
    def outputs(self) -> int:
        """Columns of the scores."""
        return len(self.labels)

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        one = ", or of the second label alone, (rows,) or (rows, 1)" if self.outputs == 2 else ""
        return f"{self.outputs} labels need logits of shape (rows, {self.outputs}){one}"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a module may return this shape for each row."""
        return shape == (self.outputs,) or (self.outputs == 2 and shape in {(), (1,)})

    @property
    def scale(self) -> float:
        """The unit in which differences of scores are measured."""
        return 1.0

    @property
    def review_limit(self) -> float:
        """The figure that sends a row to review: the confidence below which it goes there."""
        return 0.0 if self.review_threshold is None else self.review_threshold

    @property
    def policy(self) -> str:
        """What goes to review, in words."""
        if self.review_limit > 1:
            return "every prediction goes to review"
        return f"predictions below {self.review_limit:.4f} go to review"

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not indexes of labels.

        Raises:
            BundleError: If one is not.
        """
        if not np.issubdtype(targets.dtype, np.integer) or not ((targets >= 0) & (targets < self.outputs)).all():
            raise BundleError(f"targets must be whole numbers from 0 to {self.outputs - 1}, an index of a label")

    def scores(self, outputs: NDArray[np.float32]) -> Scores:
        """Makes scores of logits, shape ``(rows, outputs)``: softmax, after the division by the temperature."""
        logits = outputs.astype(np.float64) / self.temperature
        parts = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(parts / parts.sum(-1, keepdims=True), np.float32)

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How sure each row is: its highest score."""
        return np.asarray(scores.max(-1))

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows of ``scores``, shape ``(rows, outputs)``, a person should look at."""
        return np.asarray(scores.max(-1) < self.review_limit)

    def right(self, scores: Scores, targets: NDArray[Any]) -> Flags:
        """Which rows are answered with their target."""
        return np.asarray(scores.argmax(-1) == targets)

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get another answer."""
        return np.asarray(expected.argmax(-1) != got.argmax(-1))

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(outputs,)``, answers."""
        return f"{self.labels[int(scores.argmax())]} at {scores.max():.4f}"

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The loss of each row that versions are compared by: 1 for a wrong class."""
        return (~self.right(scores, targets)).astype(np.float64)


class Regression(msgspec.Struct, frozen=True, kw_only=True, tag="regression", tag_field="kind"):
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

    coverage: float = 0.9
    widest: float | None = None
    half_width: float = 0.0
    scale: float = 1.0

    @property
    def outputs(self) -> int:
        """Columns of the scores."""
        return 2

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        return "a regression needs values of shape (rows,), or values and positive spreads of shape (rows, 2)"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a module may return this shape for each row."""
        return shape in {(), (1,), (2,)}

    @property
    def review_limit(self) -> float:
        """The figure that sends a row to review: the width of the interval above which it goes there."""
        return math.inf if self.widest is None else self.widest

    @property
    def policy(self) -> str:
        """What goes to review, in words."""
        if self.widest is None:
            return "no prediction goes to review: the task names no widest interval"
        return f"intervals wider than {self.widest:g} go to review"

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not finite numbers.

        Raises:
            BundleError: If one is not.
        """
        if not np.issubdtype(targets.dtype, np.number) or not np.isfinite(targets).all():
            raise BundleError("targets must be finite numbers")

    def scores(self, outputs: NDArray[np.float32]) -> Scores:
        """Makes scores of values, shape ``(rows,)`` or ``(rows, 1)``, or of values and spreads ``(rows, 2)``."""
        columns = outputs.reshape(len(outputs), -1)
        spread = columns[:, 1:] if columns.shape[1] == 2 else np.ones_like(columns)
        return np.concatenate([columns[:, :1], spread * np.float32(self.half_width)], 1, dtype=np.float32)

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How sure each row is: the narrower its interval, the surer."""
        return np.asarray(-scores[:, 1])

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows of ``scores``, shape ``(rows, 2)``, a person should look at."""
        if self.widest is None:
            return np.zeros(len(scores), bool)
        return np.asarray(scores[:, 1] * 2 > self.widest)

    def right(self, scores: Scores, targets: NDArray[Any]) -> Flags:
        """Which rows have their target inside the interval."""
        return np.asarray(np.abs(scores[:, 0] - targets) <= scores[:, 1])

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get another answer: a value that moves by more than a tenth of its half interval."""
        moved = np.abs(expected[:, 0] - got[:, 0])
        return np.asarray(~(moved <= MOVED * expected[:, 1]))  # NaN is another answer

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(outputs,)``, answers."""
        return f"{scores[0]:.4g} ± {scores[1]:.4g}"

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The loss of each row that versions are compared by: the absolute error."""
        return np.asarray(np.abs(scores[:, 0].astype(np.float64) - targets))


Task = Classification | Regression
