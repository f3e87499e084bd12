"""Which of two versions is right more often? People are asked only where both decide otherwise.

In shadow both answer the same row. Where they decide alike, both are right or both wrong: only the others can
make a difference, and a label there is worth many that are drawn from all rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rollout.judge.sequences import Floats, asymptotic_mean, proportion, weighted_bounded_mean

# The part of the error that the share of disagreements has; rows are many, so it is known well.
FOR_THE_SHARE = 0.1
MOST_LABELS = 10_000_000


class Labelled(NamedTuple):
    """A disagreement that people have decided, without knowing which version said what.

    Attributes:
        right: 1 if the challenger was right, -1 if the champion was, 0 if neither; between these where answers
            may be right in part: the loss of the champion less that of the challenger.
        pi: The probability with which it was picked, above 0.
    """

    right: float
    pi: float = 1.0


class AccuracyDifference(NamedTuple):
    """By how much the challenger is right more often, as a share of all rows.

    Attributes:
        estimate: The best guess; 0 without a label.
        low: Lower end.
        high: Upper end.
    """

    estimate: float
    low: float
    high: float


def accuracy_difference(
    shadowed: int, disagreed: int, labelled: Sequence[Labelled | float], alpha: float
) -> AccuracyDifference:
    """Returns the accuracy of the challenger less that of the champion, valid at any time.

    ``disagreed / shadowed * mean(right)``, where each label counts ``1 / pi``. The ends multiply a confidence
    sequence of the share of disagreements (``proportion``, with a tenth of the error) and one of the mean (by
    betting).

    Args:
        shadowed: Rows that both versions scored.
        disagreed: Those of them that they decided otherwise.
        labelled: In the order in which they were decided; a number alone where all were picked alike.
        alpha: The probability of an error at any time, between 0 and 1.

    Example:
        >>> labels = [1, 1, 1, -1, 0, 1, 1, -1, 1, 1] * 30
        >>> estimate, low, high = accuracy_difference(20_000, 1_000, labels, alpha=0.05)
        >>> round(estimate, 4), round(low, 4), round(high, 4)
        (0.025, 0.0151, 0.0369)
    """
    right, weights = _columns(labelled)
    share = disagreed / shadowed if shadowed else 0.0
    least, most = proportion(disagreed, shadowed, FOR_THE_SHARE * alpha, tuned_for=10_000)
    low, high = weighted_bounded_mean(right, weights, -1, 1, (1 - FOR_THE_SHARE) * alpha)
    estimate = share * float((weights * right).sum() / weights.sum()) if len(right) else 0.0
    return AccuracyDifference(estimate, min(least * low, most * low), max(least * high, most * high))


def labels_wanted(
    shadowed: int, disagreed: int, labelled: Sequence[Labelled | float], alpha: float, limit: float
) -> int | None:
    """Returns how many more labels are to be expected until one end has passed the limit.

    From what is known now, with a label of each kind added, so that a few that agree do not look like all; an
    estimate that is made anew with each label.

    Args:
        shadowed: As in ``accuracy_difference``.
        disagreed: As there.
        labelled: As there.
        alpha: As there.
        limit: The difference that is to be proved or refuted, such as minus the margin.

    Returns:
        0 where it has; ``None`` where there is nothing to label, or the estimate lies at the limit.

    Example:
        >>> labels_wanted(20_000, 1_000, [1, 1, 1, -1, 0, 1, 1, -1, 1, 1], alpha=0.05, limit=0.0)
        34
    """
    found = accuracy_difference(shadowed, disagreed, labelled, alpha)
    if found.low > limit or found.high < limit:
        return 0
    if not disagreed:
        return None
    right, weights = _columns([*labelled, 1, 0, -1])
    share = disagreed / shadowed
    mean = float((weights * right).sum() / weights.sum())
    # Kish's design effect: by how much unequal weights make labels count less.
    effect = float(len(weights) * (weights**2).sum() / weights.sum() ** 2)
    variance = effect * float((weights * (right - mean) ** 2).sum() / weights.sum())
    distance = abs(mean - limit / share)

    def is_far(count: int) -> bool:
        return asymptotic_mean(float(count), 0.0, variance, alpha, tuned_for=count)[1] < distance

    fewest, enough = len(labelled), max(2, 2 * len(labelled))
    while not is_far(enough):
        if enough > MOST_LABELS:
            return None
        fewest, enough = enough, 2 * enough
    while enough - fewest > 1:
        middle = (fewest + enough) // 2
        fewest, enough = (fewest, middle) if is_far(middle) else (middle, enough)
    return enough - len(labelled)


def _columns(labelled: Sequence[Labelled | float]) -> tuple[Floats, Floats]:
    """Returns who was right, and the weights, the largest of which is 1."""
    items = [item if isinstance(item, tuple) else Labelled(item) for item in labelled]
    if not all(-1 <= item.right <= 1 and 0 < item.pi < math.inf for item in items):
        raise ValueError("a label is from -1 to 1, with a probability above 0")
    pi = np.array([item.pi for item in items], float)
    return np.array([item.right for item in items], float), pi.min(initial=np.inf) / pi if len(pi) else pi
