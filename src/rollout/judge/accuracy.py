"""The accuracy of a model on all of its traffic, from the part that people have looked at.

The queue is no fair sample: it is full of what the model was unsure of. Each item carries the probability ``pi``
with which it got there, so each stands for ``1 / pi`` predictions, and the audit speaks for what nobody doubted.

An answer of several parts, such as spans or boxes, may be right in part: 1 less its loss, which is what accuracy
is the mean of then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

Z = NormalDist().inv_cdf(0.975)


class Reviewed(NamedTuple):
    """An item that people have decided.

    Attributes:
        weight: Predictions that it stands for, ``1 / pi``: 1 or more.
        right: Whether the model had said the same; how far, from 0 to 1, where an answer may be right in part.
    """

    weight: float
    right: float


class Stratum(NamedTuple):
    """What came into the queue for one reason.

    Attributes:
        weight: Sum of ``1 / pi`` over all that came in, decided or not.
        reviewed: Those of them that are decided.
    """

    weight: float
    reviewed: Sequence[Reviewed]


class Accuracy(NamedTuple):
    """An estimate of the accuracy on all traffic.

    Attributes:
        estimate: How far predictions are right on average, from 0 to 1: the share of those that are, where none
            is right in part; ``None`` where a stratum is missing or nothing came in.
        low: Lower end of the 95 % confidence interval.
        high: Its upper end.
        reviewed: Decided items that it rests on.
        missing: Strata with predictions of which none is decided: nothing is known about them.
    """

    estimate: float | None
    low: float | None
    high: float | None
    reviewed: int
    missing: tuple[str, ...]


class _Share(NamedTuple):
    estimate: float
    low: float
    high: float


def estimate_accuracy(strata: Mapping[str, Stratum]) -> Accuracy:
    """Estimates the accuracy on all traffic, without bias from how items came into the queue.

    The estimate is ``sum(W_h / W * p_h)``. In each stratum ``p_h`` is the weighted mean of what was right (Hájek,
    "Comment on an essay by D. Basu", 1971), and the strata are weighted by what came in, whatever part of it is
    decided: post-stratification (Särndal, Swensson & Wretman, "Model Assisted Survey Sampling", 1992).

    The interval of each ``p_h`` is Wilson's ("Probable inference, the law of succession, and statistical
    inference", 1927) for ``sum(w)² / sum(w²)`` items (Kish, "Survey Sampling", 1965), made shorter by the
    finite-population correction ``sqrt(1 - n / W_h)`` (Cochran, "Sampling Techniques", 1977, 2.6): a stratum that
    came in whole and is decided to its last item has no sampling error. They are combined by MOVER (Zou & Donner,
    "Construction of confidence limits about effect measures", 2008). Where ``pi < 1`` the weights
    ``W_h`` are estimates themselves; linearization (Särndal et al., 5.5) says how much that adds.

    What is right in part has Wilson's interval as well. Its variance ``p * (1 - p)`` is the largest that values
    from 0 to 1 with that mean can have (Bhatia & Davis, "A better bound on the variance", 2000), so that the
    interval is as wide as such values could need, and wider than they do: a few decided items whose losses are
    all alike do not show the large one that is rare.

    Args:
        strata: By reason. Which items of one are decided must not depend on whether they are right.

    Raises:
        ValueError: If an item is right to less than 0 or more than 1.

    Example:
        >>> uncertain = Stratum(1_000, [Reviewed(1, right=row < 700) for row in range(1_000)])
        >>> audit = Stratum(9_000, [Reviewed(50, right=row < 98) for row in range(100)])
        >>> accuracy = estimate_accuracy({"low_confidence": uncertain, "audit": audit})
        >>> round(accuracy.estimate, 3), round(accuracy.low, 3), round(accuracy.high, 3)
        (0.952, 0.907, 0.965)
    """
    present = {name: stratum for name, stratum in strata.items() if stratum.weight > 0}
    reviewed = sum(len(stratum.reviewed) for stratum in present.values())
    missing = tuple(name for name, stratum in present.items() if not stratum.reviewed)
    if missing or not present:
        return Accuracy(None, None, None, reviewed, missing)
    total = math.fsum(stratum.weight for stratum in present.values())
    parts = [(stratum, _share_right(stratum)) for stratum in present.values()]
    estimate = math.fsum(stratum.weight / total * share.estimate for stratum, share in parts)
    below = above = 0.0
    for stratum, share in parts:
        part = stratum.weight / total
        of_weight = (Z * (share.estimate - estimate) / total) ** 2 * _variance_of_weight(stratum)
        below += (part * (share.estimate - share.low)) ** 2 + of_weight
        above += (part * (share.high - share.estimate)) ** 2 + of_weight
    low, high = max(0.0, estimate - math.sqrt(below)), min(1.0, estimate + math.sqrt(above))
    return Accuracy(estimate, low, high, reviewed, ())


def _share_right(stratum: Stratum) -> _Share:
    weights = [item.weight for item in stratum.reviewed]
    sum_of_weights = math.fsum(weights)
    if not all(0 <= item.right <= 1 for item in stratum.reviewed):
        raise ValueError("an item is right from 0 to 1")
    p = math.fsum(item.weight * item.right for item in stratum.reviewed) / sum_of_weights
    n = sum_of_weights**2 / math.fsum(weight**2 for weight in weights)
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    correction = math.sqrt(max(0.0, 1 - len(weights) / stratum.weight))
    return _Share(p, p - correction * (p - centre + half), p + correction * (centre + half - p))


def _variance_of_weight(stratum: Stratum) -> float:
    """Estimates the variance of the sum of ``1 / pi``: the sum of ``(1 - pi) / pi²`` over all that came in."""
    weights = [item.weight for item in stratum.reviewed]
    return stratum.weight * max(0.0, math.fsum(weight**2 for weight in weights) / math.fsum(weights) - 1)
