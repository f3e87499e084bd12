"""Where several labels may hold: from which probability each does, and how near to that a person should look."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.errors import BundleError
from rollout.heads.calibration import error_bound, review_threshold

HALF = 0.5


class TagThresholds(NamedTuple):
    """From which probability a label holds, how near to it a person looks, and what speaks for that.

    Attributes:
        thresholds: A label holds at this probability or above, shape ``(labels,)``.
        margins: A probability that lies nearer to its threshold than this is unsure, shape ``(labels,)``; 2,
            which nothing is away, where no margin keeps the risk.
        answered: Calibration rows at least the margin away, shape ``(labels,)``.
        errors: Decisions among these that were wrong, shape ``(labels,)``.
        bounds: What the error rate among such decisions is at most, each with probability ``1 - delta / labels``,
            shape ``(labels,)``; 1 where none are answered.
    """

    thresholds: NDArray[np.float64]
    margins: NDArray[np.float64]
    answered: NDArray[np.int64]
    errors: NDArray[np.int64]
    bounds: NDArray[np.float64]


def tag_thresholds(
    probabilities: NDArray[Any],
    targets: NDArray[np.bool_],
    candidates: NDArray[Any],
    thresholds: ArrayLike = HALF,
    *,
    risk: float = 0.02,
    delta: float = 0.05,
) -> TagThresholds:
    """Finds for each label the smallest margin around its threshold outside which it is decided without review.

    With probability ``1 - delta`` over the draw of the rows, of every label at once: the error among its
    decisions at least the margin away is at most ``risk``. Each label is tested as ``review_threshold`` does, by
    fixed-sequence testing (Angelopoulos et al., "Learn then Test", 2021), with the distance from its threshold as
    the confidence and with ``delta / labels`` as the level (Bonferroni): that costs few rows, since what is
    needed grows with the logarithm. The error is that of both decisions together; where a label is rare, nearly
    all of them say that it does not hold, and the risk speaks for those. With a threshold far from one half,
    decisions on its wider side are often wrong even when they are far away, and it takes a wide margin.

    Args:
        probabilities: Of each label, after the temperature, shape ``(rows, labels)``.
        targets: Whether each label holds, shape ``(rows, labels)``.
        candidates: Probabilities of other rows, whose distances are the margins to be tried, shape
            ``(other rows, labels)``; temperature and thresholds may depend on these rows, and must not on
            ``targets``.
        thresholds: From which probability a label holds: one for all, or one each.
        risk: Largest error wanted among decisions that nobody reviews.
        delta: Probability with which that may fail for any of the labels.

    Raises:
        BundleError: If a threshold is no probability, or their number is not that of the labels.
    """
    # Needs SciPy, which serving has not.

    labels = probabilities.shape[1]
    given = np.asarray(thresholds, np.float64)
    if given.ndim and given.shape != (labels,):
        raise BundleError(f"{given.size} thresholds are given for {labels} labels: give one for all, or one each")
    wanted = np.broadcast_to(given, labels).copy()
    wrong = wanted[~((wanted >= 0) & (wanted <= 1))]  # NaN is none, either
    if len(wrong):
        raise BundleError(f"a threshold of {wrong[0]:g} is no probability: give one from 0 to 1")
    far, others = distances(probabilities, wanted), distances(candidates, wanted)
    correct = decide(probabilities, wanted) == targets
    level = delta / labels
    margins = np.array(
        [
            review_threshold(far[:, label], correct[:, label], others[:, label], risk=risk, delta=level)
            for label in range(labels)
        ]
    )
    is_answered = far >= margins
    answered, errors = is_answered.sum(0), (is_answered & ~correct).sum(0)
    bounds = [error_bound(int(wrong), int(rows), level) for wrong, rows in zip(errors, answered, strict=True)]
    return TagThresholds(wanted, margins, answered, errors, np.array(bounds))


def decide(probabilities: NDArray[Any], thresholds: ArrayLike) -> NDArray[np.bool_]:
    """Returns which labels hold, shape ``(rows, labels)``: those at their threshold or above."""
    return np.asarray(probabilities >= np.asarray(thresholds))


def distances(probabilities: NDArray[Any], thresholds: ArrayLike) -> NDArray[np.float64]:
    """Returns how far each probability is from its threshold, shape ``(rows, labels)``."""
    return np.asarray(np.abs(np.asarray(probabilities, np.float64) - np.asarray(thresholds)))


def unsure(probabilities: NDArray[Any], thresholds: ArrayLike, margins: ArrayLike) -> NDArray[np.bool_]:
    """Returns which labels a person should look at, shape ``(rows, labels)``.

    A row with any of them goes to review.

    Args:
        probabilities: Shape ``(rows, labels)``; one that is not a number is unsure.
        thresholds: From which probability a label holds, shape ``(labels,)``.
        margins: How near to it a label is unsure, shape ``(labels,)``.
    """
    return ~(distances(probabilities, thresholds) >= np.asarray(margins))
