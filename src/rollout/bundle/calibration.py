"""The review threshold: computed from data, with a guarantee."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from rollout.errors import BundleError

COVERAGES = (1.0, 0.99, 0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)


def review_threshold(
    confidence: NDArray[Any], correct: NDArray[np.bool_], *, risk: float = 0.02, delta: float = 0.05
) -> float:
    """Finds the lowest confidence at which predictions may be answered without review.

    With probability ``1 - delta`` over the draw of the calibration part, the error among predictions at or
    above the threshold is at most ``risk``: selective classification with guaranteed risk (Geifman & El-Yaniv,
    "Selective Classification for Deep Neural Networks", 2017), over a fixed list of coverages that share
    ``delta`` equally, since few rows do not make the bound monotonic, which their binary search relies on.

    Args:
        confidence: Confidence of each calibration row, shape ``(rows,)``.
        correct: Whether each was right, shape ``(rows,)``.
        risk: Largest error wanted among unreviewed predictions.
        delta: Probability with which the guarantee may fail.

    Raises:
        BundleError: If no threshold reaches this.
    """
    descending = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[descending], ~correct[descending]
    for coverage in COVERAGES:
        threshold = confidence[max(0, math.floor(coverage * len(confidence)) - 1)]
        answered = confidence >= threshold  # rows that tie with the threshold are answered, too
        bound = error_bound(int(wrong[answered].sum()), int(answered.sum()), delta / len(COVERAGES))
        if bound <= risk:
            return float(threshold)
    raise BundleError(
        f"no review threshold keeps the error at {risk:.1%} with probability {1 - delta:.0%} on these "
        f"{len(confidence)} calibration rows: give more rows, a better model or a larger risk"
    )


def error_bound(errors: int, rows: int, delta: float) -> float:
    """Upper bound of an error rate that holds with probability ``1 - delta`` (Clopper & Pearson 1934)."""
    return 1.0 if errors >= rows else float(scipy.stats.beta.ppf(1 - delta, errors + 1, rows - errors))
