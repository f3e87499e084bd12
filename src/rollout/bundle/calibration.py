"""Confidence that means something: temperature, review threshold and intervals, computed with a guarantee."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from rollout.bundle.task import Classification, Regression, Task
from rollout.errors import BundleError

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)
# The first coverage that is tried leaves so many times the rows without which no bound could hold.
HEADROOM = 1.2


def calibrate(task: Task, outputs: NDArray[np.float32], targets: NDArray[Any]) -> Task:
    """Completes a task with what follows from the calibration part.

    Args:
        task: The task as it was asked for.
        outputs: What the module gives: logits ``(rows, classes)``, values ``(rows,)`` or ``(rows, 1)``, or values
            and spreads ``(rows, 2)``.
        targets: Index of the true class, or the true value, shape ``(rows,)``.

    Raises:
        BundleError: If the rows are too few or the model errs too often for what was asked.
    """
    if isinstance(task, Regression):
        return _calibrate_regression(task, outputs, targets)
    return _calibrate_classification(task, outputs, targets)


def _calibrate_classification(
    task: Classification, logits: NDArray[np.float32], targets: NDArray[Any]
) -> Classification:
    # A third of the rows decides on temperature and candidates; the rest, which they do not depend on, on the
    # threshold: only then does its guarantee hold.
    first = np.arange(len(targets)) % 3 == 0
    temperature = fit_temperature(logits[first], targets[first])
    scores = scipy.special.softmax(logits.astype(np.float64) / temperature, axis=-1)
    confidence, correct = scores.max(-1), scores.argmax(-1) == targets
    threshold = review_threshold(
        confidence[~first], correct[~first], confidence[first], risk=task.risk, delta=task.delta
    )
    return msgspec.structs.replace(task, temperature=temperature, review_threshold=threshold)


def fit_temperature(logits: NDArray[np.float32], targets: NDArray[Any]) -> float:
    """Returns the divisor of the logits that makes the targets most likely.

    Guo et al., "On Calibration of Modern Neural Networks", 2017; with the targets smoothed as in Platt,
    "Probabilistic Outputs for Support Vector Machines", 1999, since rows that are all right would otherwise
    make every confidence 1.

    Args:
        logits: Shape ``(rows, classes)``.
        targets: Index of the true class, shape ``(rows,)``.
    """
    rows, classes = logits.shape
    wanted = np.full((rows, classes), 1 / (rows + 2) / (classes - 1))
    wanted[np.arange(rows), targets] = (rows + 1) / (rows + 2)

    def loss(log_temperature: float) -> float:
        log_scores = scipy.special.log_softmax(logits.astype(np.float64) / math.exp(log_temperature), axis=-1)
        return -float((wanted * log_scores).sum())

    found = scipy.optimize.minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded")
    return round(math.exp(float(found.x)), 6)


def review_threshold(
    confidence: NDArray[Any],
    correct: NDArray[np.bool_],
    candidates: NDArray[Any],
    *,
    risk: float = 0.02,
    delta: float = 0.05,
) -> float:
    """Finds the lowest confidence at which predictions may be answered without review.

    With probability ``1 - delta`` over the draw of the rows, the error among predictions at or above the
    threshold is at most ``risk``: selective classification with guaranteed risk (Geifman & El-Yaniv, "Selective
    Classification for Deep Neural Networks", 2017) by fixed-sequence testing (Angelopoulos et al., "Learn then
    Test", 2021): thresholds are tried from the safest down, each at level ``delta``, until one fails.

    Args:
        confidence: Confidence of each row, shape ``(rows,)``.
        correct: Whether each was right, shape ``(rows,)``.
        candidates: Confidence of other rows, whose quantiles are the thresholds to be tried.
        risk: Largest error wanted among unreviewed predictions.
        delta: Probability with which the guarantee may fail.

    Raises:
        BundleError: If no threshold reaches this.
    """
    needed = math.ceil(math.log(delta) / math.log(1 - risk))
    start = HEADROOM * needed / len(confidence)
    descending = np.sort(candidates)[::-1]
    passed: float | None = None
    for coverage in (coverage for coverage in COVERAGES if coverage >= min(start, 1.0)):
        quantile = descending[max(0, math.floor(coverage * len(descending)) - 1)]
        threshold = math.floor(quantile * 1e6) / 1e6
        answered = confidence >= threshold
        if error_bound(int((~correct[answered]).sum()), int(answered.sum()), delta) > risk:
            break
        passed = threshold
    if passed is None:
        raise BundleError(
            f"no review threshold keeps the error at {risk:.1%} with probability {1 - delta:.0%} on these "
            f"{len(confidence)} calibration rows (without any error it would take {needed}): give more rows, a "
            "better model or a larger risk"
        )
    return passed


def error_bound(errors: int, rows: int, delta: float) -> float:
    """Upper bound of an error rate that holds with probability ``1 - delta`` (Clopper & Pearson 1934)."""
    return 1.0 if errors >= rows else float(scipy.stats.beta.ppf(1 - delta, errors + 1, rows - errors))


def _calibrate_regression(task: Regression, outputs: NDArray[np.float32], targets: NDArray[Any]) -> Regression:
    half_width = float(half_widths(residuals(outputs, targets), task.coverage))
    if math.isinf(half_width):
        raise BundleError(
            f"{len(targets)} calibration rows are too few for intervals that cover {task.coverage:.1%}: give more"
        )
    return msgspec.structs.replace(task, half_width=half_width, scale=float(np.std(targets)) or 1.0)


def residuals(outputs: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
    """Returns how far each value is from its target, in units of the spread where the module gives one.

    Raises:
        BundleError: If a spread is not positive.
    """
    columns = outputs.reshape(len(outputs), -1).astype(np.float64)
    spread = columns[:, 1] if columns.shape[1] == 2 else np.ones(len(columns))
    if not (spread > 0).all():
        raise BundleError("the module gives a spread that is not positive; let it end in softplus")
    return np.asarray(np.abs(targets - columns[:, 0]) / spread)


def half_widths(residuals: NDArray[np.float64], coverage: ArrayLike) -> NDArray[np.float64]:
    """Returns half the width of split-conformal intervals for a spread of 1 (Lei et al. 2018, section 5.2).

    Args:
        residuals: Those of the calibration part.
        coverage: Share of targets that intervals are to contain; one, or several at once.

    Returns:
        One for each coverage, infinite where the rows are too few for it.
    """
    ranks = np.ceil((len(residuals) + 1) * np.asarray(coverage)).astype(int)
    return np.asarray(np.append(np.sort(residuals), np.inf)[np.minimum(ranks, len(residuals) + 1) - 1])
