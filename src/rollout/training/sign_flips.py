"""Tests by flipping signs, at one look or at several, with an error that stays the same over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

COUNTED_OUT = 12  # units of which every choice of signs is counted
DRAWS = 2**COUNTED_OUT  # choices of signs that are drawn where there are more
AT_ONCE = 1024
DIGITS = 12  # sums that differ by less than this part of all units are the same


class Look(NamedTuple):
    """What a test says at one look.

    Attributes:
        p_value: That of the test if this were the only look.
        level: The claim holds where the p-value is not above it: what the looks before left over.
    """

    p_value: float
    level: float

    @property
    def holds(self) -> bool:
        """Whether the claim holds."""
        return self.p_value <= self.level


def paired_p_value(differences: NDArray[Any], *, margin: float = 0.0) -> float:
    """Returns the one-sided p-value of a mean above ``-margin``; see ``look``.

    Args:
        differences: Paired differences, shape ``(n,)``.
        margin: How far below zero the mean may be.

    Returns:
        The p-value; 1 where a difference is not finite.
    """
    return look(np.asarray(differences, np.float64)[None] + margin, [1.0])[0].p_value


def look(values: Values, spent: Sequence[float]) -> list[Look]:
    """Tests at several looks whether what the units add up to is above zero.

    Were the sum zero and each unit symmetric around it, then each could as likely have the other sign at all
    looks: Fisher's randomization test ("The Design of Experiments", 1935, section 21). All choices of signs are
    counted, or a fixed random sample of them where there are too many; ``n`` units thus never give less than
    ``2**-n``. At each look those choices are rejected whose sum is largest, as many as the error that may be
    spent until then allows besides those that were rejected before (Lan & DeMets, "Discrete Sequential
    Boundaries for Clinical Trials", 1983; for randomization tests, Plamadeala & Rosenberger, "Sequential
    Monitoring with Conditional Randomization Tests", 2012). The claim is thus false at any of the looks with no
    more than the probability that is spent until the last.

    Args:
        values: What each unit comes to at each look, shape ``(looks, units)``.
        spent: The error that may be spent until each look, rising.

    Returns:
        What it says at each look; a p-value of 1 where a value is not finite.
    """
    if not np.isfinite(values).all():
        return [Look(1.0, 0.0)] * len(values)
    sums = _sums(values)
    rejected = np.zeros(sums.shape[1], bool)
    found = []
    for at, allowed in zip(sums, spent, strict=True):
        order = np.argsort(-at, kind="stable")
        count = rejected.sum() + np.cumsum(~rejected[order])
        is_last_of_equals = np.append(np.diff(at[order]) != 0, True)
        ends = np.flatnonzero(is_last_of_equals & (count <= allowed * len(at) + 1e-9))
        end = int(ends[-1]) + 1 if len(ends) else 0
        rejected[order[:end]] = True
        found.append(Look(float((at >= at[0]).mean()), end / len(at)))
    return found


def _sums(values: Values) -> Values:
    """Returns the sums under choices of signs, shape ``(looks, choices)``, first under their own signs."""
    counted = values[:, (values != 0).any(0)]  # a zero is the same under either sign
    if counted.shape[1] <= COUNTED_OUT:
        units = np.arange(counted.shape[1])
        signs = 1.0 - 2.0 * ((np.arange(2 ** len(units))[None] >> units[:, None]) & 1)
        sums = counted @ signs
    else:
        # The signs of a unit follow from its place, so that a later look sees those of an earlier one again.
        sums = np.zeros((len(values), DRAWS))
        for start in range(0, values.shape[1], AT_ONCE):
            own = values[:, start : start + AT_ONCE]
            drawn = np.random.default_rng([0, start]).integers(0, 2, (own.shape[1], DRAWS), np.int8)
            drawn[:, 0] = 0
            sums += own @ (1.0 - 2.0 * drawn)
    size = np.abs(values).sum(1, keepdims=True)
    return np.round(sums / np.where(size == 0, 1.0, size), DIGITS)
