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

from rollout.bundle.evidence import ReviewEvidence
from rollout.bundle.task import UNREACHED, Classification, Regression, Task
from rollout.errors import BundleError

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)
# The first coverage that is tried leaves so many times the rows without which no bound could hold.
HEADROOM = 1.2


def calibrate(
    task: Task, outputs: NDArray[np.float32], targets: NDArray[Any]
) -> tuple[Task, ReviewEvidence | None]:
    """Completes a task with what follows from the calibration part.

    Args:
        task: The task as it was asked for.
        outputs: What the module gives: logits ``(rows, classes)``, values ``(rows,)`` or ``(rows, 1)``, or values
            and spreads ``(rows, 2)``.
        targets: Index of the true class, or the true value, shape ``(rows,)``.

    Returns:
        The task, and what speaks for its review threshold. Where no threshold keeps the task's risk, all goes to
        review.

    Raises:
        BundleError: If a given threshold is no confidence, or the rows are too few for a regression's intervals.
    """
    if isinstance(task, Regression):
        return _calibrate_regression(task, outputs, targets), None
    return _calibrate_classification(task, outputs, targets)


def _calibrate_classification(
    task: Classification, logits: NDArray[np.float32], targets: NDArray[Any]
) -> tuple[Classification, ReviewEvidence]:
    given = task.review_threshold
    if given is not None and not given >= 0:  # NaN is none, either
        raise BundleError(
            f"a review_threshold of {given} is no confidence: give one from 0 to 1, or more to review everything"
        )
    # A third of the rows decides on temperature and candidates; the rest, which they do not depend on, on the
    # threshold: only then does its guarantee hold.
    first = np.arange(len(targets)) % 3 == 0
    temperature = fit_temperature(logits[first], targets[first])
    scores = scipy.special.softmax(logits.astype(np.float64) / temperature, axis=-1)
    confidence, correct = scores.max(-1), scores.argmax(-1) == targets
    rows, candidates = (confidence[~first], correct[~first]), confidence[first]
    threshold = review_threshold(*rows, candidates, risk=task.risk, delta=task.delta) if given is None else given
    answered = rows[0] >= threshold
    errors = int((~rows[1][answered]).sum())
    risks = np.arange(1, 100) / 100
    reached = (risk for risk in risks if review_threshold(*rows, candidates, risk=risk, delta=task.delta) <= 1)
    evidence = ReviewEvidence(
        is_given=given is not None,
        rows=len(rows[0]),
        errors=int((~rows[1]).sum()),
        answered=int(answered.sum()),
        answered_errors=errors,
        bound=error_bound(errors, int(answered.sum()), task.delta),
        needed=rows_needed(task.risk, task.delta),
        lowest_risk=next(map(float, reached), None),
    )
    return msgspec.structs.replace(task, temperature=temperature, review_threshold=float(threshold)), evidence


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

    Returns:
        It; ``UNREACHED`` where none keeps the risk, so that everything goes to review.
    """
    start = HEADROOM * rows_needed(risk, delta) / len(confidence)
    descending = np.sort(candidates)[::-1]
    passed: float | None = None
    for coverage in (coverage for coverage in COVERAGES if coverage >= min(start, 1.0)):
        quantile = descending[max(0, math.floor(coverage * len(descending)) - 1)]
        threshold = math.floor(quantile * 1e6) / 1e6
        answered = confidence >= threshold
        if error_bound(int((~correct[answered]).sum()), int(answered.sum()), delta) > risk:
            break
        passed = threshold
    return UNREACHED if passed is None else passed


def rows_needed(risk: float, delta: float) -> int:
    """Returns how many rows without an error it takes to vouch for ``risk`` with probability ``1 - delta``."""
    return math.ceil(math.log(delta) / math.log(1 - risk))


def error_bound(errors: int, rows: int, delta: float) -> float:
    """Upper bound of an error rate that holds with probability ``1 - delta`` (Clopper & Pearson 1934)."""
    return 1.0 if errors >= rows else float(scipy.stats.beta.ppf(1 - delta, errors + 1, rows - errors))


def _calibrate_regression(task: Regression, outputs: NDArray[np.float32], targets: NDArray[Any]) -> Regression:
    half_width = float(half_widths(residuals(outputs, targets), task.coverage))
    if math.isinf(half_width):
        raise BundleError(
            f"{len(targets)} calibration rows are too few for intervals that cover {task.coverage:.1%}: it takes "
            f"{math.ceil(round(task.coverage / (1 - task.coverage), 6))}, since an interval is as wide as the "
            "error of one of them"
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
        raise BundleError(
            "the module gives a spread that is not positive; let it end in softplus. A second column is the "
            "spread of the first: several targets are not taken yet"
        )
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
