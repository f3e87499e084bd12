"""Confidence that means something: temperature, review threshold and intervals, computed with a guarantee."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.heads.review_evidence import ReviewEvidence

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)
# The first coverage that is tried leaves so many times the rows without which no bound could hold.
HEADROOM = 1.2
# A confidence that no prediction reaches, as a number that JSON has.
UNREACHED = 2.0


def fit_temperature(logits: NDArray[np.float32], targets: NDArray[Any]) -> float:
    """Returns the divisor of the logits that makes the targets most likely.

    Guo et al., "On Calibration of Modern Neural Networks", 2017; with the targets smoothed as in Platt,
    "Probabilistic Outputs for Support Vector Machines", 1999, since rows that are all right would otherwise
    make every confidence 1.

    Args:
        logits: Shape ``(rows, classes)``.
        targets: Index of the true class, shape ``(rows,)``.
    """
    import scipy.optimize  # noqa: PLC0415  only packing has SciPy; so below
    import scipy.special  # noqa: PLC0415

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


def judge_threshold(
    confidence: NDArray[Any],
    correct: NDArray[np.bool_],
    candidates: NDArray[Any],
    threshold: float,
    risk: float,
    delta: float,
    *,
    is_given: bool,
) -> ReviewEvidence:
    """Says what speaks for a threshold; the first three and ``risk`` and ``delta`` as of ``review_threshold``.

    Args:
        confidence: Confidence of each row.
        correct: Whether each was right.
        candidates: Confidence of other rows.
        threshold: The threshold.
        risk: Largest error wanted.
        delta: Probability with which the guarantee may fail.
        is_given: Whether the author gave it.
    """
    answered = confidence >= threshold
    errors = int((~correct[answered]).sum())
    risks = np.arange(1, 100) / 100
    rows = confidence, correct, candidates
    reached = (each for each in risks if review_threshold(*rows, risk=each, delta=delta) <= 1)
    return ReviewEvidence(
        is_given=is_given,
        rows=len(confidence),
        errors=int((~correct).sum()),
        answered=int(answered.sum()),
        answered_errors=errors,
        bound=error_bound(errors, int(answered.sum()), delta),
        needed=rows_needed(risk, delta),
        lowest_risk=next(map(float, reached), None),
    )


def rows_needed(risk: float, delta: float) -> int:
    """Returns how many rows without an error it takes to vouch for ``risk`` with probability ``1 - delta``."""
    return math.ceil(math.log(delta) / math.log(1 - risk))


def error_bound(errors: int, rows: int, delta: float) -> float:
    """Upper bound of an error rate that holds with probability ``1 - delta`` (Clopper & Pearson 1934)."""
    import scipy.stats  # noqa: PLC0415

    return 1.0 if errors >= rows else float(scipy.stats.beta.ppf(1 - delta, errors + 1, rows - errors))


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
