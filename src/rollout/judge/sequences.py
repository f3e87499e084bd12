"""Confidence sequences: intervals that hold at all times together, so that looking at them is free.

``P(the truth lies outside at any time) <= alpha``. A confidence interval promises that for one time only:
looked at again and again, it is wrong sooner or later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
# One figure, or one for each of many runs or looks.
Figures = TypeVar("Figures", float, Floats)

# The largest part of the capital that is put on one value (Waudby-Smith & Ramdas 2023, c in equation 26).
LARGEST_BET = 0.5
STEPS = 60
COARSE_STEPS = 25
GOLDEN = (math.sqrt(5) - 1) / 2


def bounded_mean(values: ArrayLike, low: float, high: float, alpha: float) -> tuple[float, float]:
    """Returns the mean of values within bounds, after the last of them.

    By betting, with the hedged capital process (Waudby-Smith & Ramdas, "Estimating means of bounded random
    variables by betting", 2023, theorem 3): whoever bets against a candidate ``m`` that is the mean seldom gets
    rich. Exact for any distribution within the bounds whose mean, given the values before, stays the same. What
    an earlier time ruled out stays ruled out.

    Args:
        values: In the order in which they came, shape ``(n,)``.
        low: What no value is below.
        high: What no value is above.
        alpha: The probability of an error at any time, between 0 and 1.

    Returns:
        Lower and upper end; ``(low, high)`` without a value.

    Raises:
        ValueError: If a value lies outside the bounds.

    Example:
        >>> low, high = bounded_mean([1, 0, 1, 1] * 100, 0, 1, alpha=0.05)
        >>> round(low, 3), round(high, 3)
        (0.671, 0.823)
    """
    found = np.asarray(values, float)
    if not bool(np.all((found >= low) & (found <= high))):
        raise ValueError(f"every value must lie between {low:g} and {high:g}")
    return weighted_bounded_mean(found, np.ones_like(found), low, high, alpha)


def weighted_bounded_mean(
    values: Floats, weights: Floats, low: float, high: float, alpha: float
) -> tuple[float, float]:
    """Returns the mean of a population of which some were likelier to be drawn than others.

    Drawn with a probability in proportion to ``1 / weight``, ``weight * (value - mean)`` has the mean 0: that
    is bet on.

    Args:
        values: Within the bounds, in the order in which they came, shape ``(n,)``.
        weights: Above 0, up to 1, shape ``(n,)``.
        low: What no value is below.
        high: What no value is above.
        alpha: The probability of an error at any time.
    """
    shares = (values - low) / (high - low)
    ends = _least_mean(shares, weights, alpha), 1 - _least_mean(1 - shares, weights, alpha)
    lower, upper = min(ends), max(ends)  # which cross at most once in 1 / alpha
    return low + (high - low) * lower, low + (high - low) * upper


def _least_mean(shares: Floats, weights: Floats, alpha: float) -> float:
    """Returns the least mean, from 0 to 1, against which nobody got rich; the capital falls with the mean."""
    if not len(shares):
        return 0.0
    bets = _bets(shares, weights, alpha)

    def is_refuted(mean: float) -> bool:
        stakes = np.minimum(bets, LARGEST_BET / mean) * weights * (shares - mean)
        return float(np.log1p(stakes).cumsum().max()) >= math.log(2 / alpha)

    return bisect(is_refuted, 0.0, 1.0)


def _bets(shares: Floats, weights: Floats, alpha: float) -> Floats:
    """Returns the predictable plug-in bets (equation 26): each knows the values before it only."""
    time = np.arange(1, len(shares) + 1)
    means = (0.5 + (weights * shares).cumsum()) / (1 + weights.cumsum())
    variances = (0.25 + (weights * (shares - means) ** 2 * weights).cumsum()) / (time + 1)
    before = np.concatenate(([0.25], variances[:-1]))
    bets: Floats = np.sqrt(2 * math.log(2 / alpha) / (before * time * np.log(time + 1)))
    return bets


def bisect(is_below: Callable[[float], bool], low: float, high: float, steps: int = STEPS) -> float:
    """Returns where a condition that holds from the low end on ends to hold."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def normal_mixture(variance: Figures, alpha: float, tuned_for: float) -> Figures:
    """Returns how far from 0 a sum of errors may be, at any time, with the error ``alpha``.

    ``sqrt((V + rho) * (log(1 + V / rho) + 2 * log(1 / alpha)))``, the boundary of the two-sided normal mixture
    (Howard, Ramdas, McAuliffe & Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
    2021, equation 14), with the ``rho`` that makes it about as narrow as can be at the variance ``tuned_for``.

    Args:
        variance: Of the sum, above 0.
        alpha: The probability of an error at any time.
        tuned_for: Chosen before the first look.

    Example:
        >>> print(f"{normal_mixture(100.0, alpha=0.05, tuned_for=100):.5f}")
        30.35209
    """
    rho = tuned_for / _tuning(alpha)
    boundary: Figures = np.sqrt((variance + rho) * (np.log(1 + variance / rho) + 2 * math.log(1 / alpha)))
    return boundary


def _tuning(alpha: float) -> float:
    """The variance by which to divide for the ``rho`` that is best there (Howard et al. 2021, section 3.5)."""
    return 2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha))


def asymptotic_mean(
    count: Figures, mean: Figures, variance: Figures, alpha: float, tuned_for: float
) -> tuple[Figures, Figures]:
    """Returns the mean of values without bounds, where there are many of them.

    An asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central
    limit theory and asymptotic confidence sequences", 2021, theorem 2.2): what the central limit theorem is to
    intervals.

    Args:
        count: Of the values, above 0.
        mean: Of them.
        variance: Of one of them, 0 or more.
        alpha: The probability of an error at any time.
        tuned_for: The count at which it should be narrowest, chosen before the first look.

    Example:
        >>> low, high = asymptotic_mean(100.0, 0.0, 1.0, alpha=0.05, tuned_for=100)
        >>> print(f"{low:.5f} to {high:.5f}")
        -0.30352 to 0.30352
    """
    half = np.sqrt(variance) * normal_mixture(count, alpha, tuned_for) / count
    return mean - half, mean + half


def proportion(successes: float, trials: float, alpha: float, tuned_for: float) -> tuple[float, float]:
    """Returns the proportions that the counts leave possible.

    Those whose likelihood is not ``1 / alpha`` times below that of a mixture of all: exact, however few the
    trials. The mixture is a beta distribution around each candidate ``p``, with ``k * p`` and ``k * (1 - p)``;
    its two-sided beta-binomial martingale is that of Howard et al. ("Time-uniform Chernoff bounds via
    nonnegative supermartingales", 2020, proposition 7; 2021, section 3.3).

    Args:
        successes: Among the trials; a fraction where they stand for fewer that are independent.
        trials: In all; without any, every proportion is possible.
        alpha: The probability of an error at any time.
        tuned_for: The trials at which it should be narrowest, chosen before the first look.

    Example:
        >>> low, high = proportion(15, 50, alpha=0.05, tuned_for=50)
        >>> round(low, 6), round(high, 6)
        (0.129557, 0.511896)
    """
    if not trials:
        return 0.0, 1.0
    failures, threshold, weight = trials - successes, math.log(1 / alpha), _weight(alpha, tuned_for)

    def is_refuted(p: float) -> bool:
        return _log_mixture(successes, failures, p, weight) > threshold

    observed = successes / trials
    low = bisect(is_refuted, 0.0, observed) if successes > 0 else 0.0
    high = bisect(lambda p: not is_refuted(p), observed, 1.0) if failures > 0 else 1.0
    return low, high


def least_difference(
    one: tuple[float, float], other: tuple[float, float], alpha: float, tuned_for: float
) -> float:
    """Returns by how much the first proportion is surely larger than the second; below 0 where it may be smaller.

    The lower end of a sequence; the upper one is that of the second less the first, turned round. A difference
    ``d`` is refuted where the product of both martingales of ``proportion`` is large for every pair ``p + d``
    and ``p``. It is a martingale itself, since the arms are independent: exact as well, and much narrower than
    what two sequences leave that share the error. On sequences for two streams: Turner & Grünwald, "Exact
    anytime-valid confidence intervals for contingency tables and beyond", 2023.

    Args:
        one: Successes and trials, as ``proportion`` takes them.
        other: Those of the other.
        alpha: The probability of an error at any time.
        tuned_for: The trials of each at which it should be narrowest, chosen before the first look.

    Example:
        >>> at_least = least_difference((12, 60), (0, 60), alpha=0.05, tuned_for=300)
        >>> at_most = -least_difference((0, 60), (12, 60), alpha=0.05, tuned_for=300)
        >>> round(at_least, 3), round(at_most, 3)
        (0.02, 0.405)
    """
    if not one[1] or not other[1]:
        return -1.0
    weight, threshold = _weight(alpha, tuned_for), math.log(1 / alpha)
    (share, share_of_other), failures = (
        (one[0] / one[1], other[0] / other[1]),
        (one[1] - one[0], other[1] - other[0]),
    )

    def is_refuted(difference: float) -> bool:
        def evidence(p: float) -> float:
            ours = _log_mixture(one[0], failures[0], p + difference, weight)
            return ours + _log_mixture(other[0], failures[1], p, weight)

        # What suits the one best, or the other, or lies between.
        low, high = sorted((share - difference, share_of_other))
        more = (high - low) / 10 + 1 / min(one[1], other[1])
        return (
            _least(evidence, max(0.0, -difference, low - more), min(1.0, 1 - difference, high + more)) > threshold
        )

    return bisect(is_refuted, -1.0, share - share_of_other, COARSE_STEPS)


def _least(figure: Callable[[float], float], low: float, high: float) -> float:
    """Returns the least value of a function that falls and then rises, by sections of the golden ratio."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = figure(left), figure(right)
    for _ in range(COARSE_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = figure(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = figure(right)
    return min(at_left, at_right)


def _weight(alpha: float, tuned_for: float) -> float:
    """Returns how many trials the mixture around a candidate is worth."""
    return max(tuned_for / _tuning(alpha) - 1, 1e-3)


def _log_mixture(successes: float, failures: float, p: float, weight: float) -> float:
    """Returns the logarithm of the martingale; its expectation is 1 if ``p`` is the proportion."""
    if not 0 < p < 1:
        return math.inf
    prior, other = weight * p, weight * (1 - p)
    return (
        math.lgamma(prior + successes)
        - math.lgamma(prior)
        + math.lgamma(other + failures)
        - math.lgamma(other)
        + math.lgamma(weight)
        - math.lgamma(weight + successes + failures)
        - successes * math.log(p)
        - failures * math.log1p(-p)
    )


def log_beta(parameters: Sequence[float]) -> float:
    """Returns the logarithm of the beta function of two parameters, or of more, as Dirichlet's has them."""
    return math.fsum(map(math.lgamma, parameters)) - math.lgamma(math.fsum(parameters))
