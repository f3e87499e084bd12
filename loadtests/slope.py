"""Whether a curve is flat."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

BLOCKS = 10


class Slope(NamedTuple):
    """How fast something grows, with a 95 % confidence interval.

    Attributes:
        per_hour: The best estimate.
        low: The lower end of the interval.
        high: The upper end.
    """

    per_hour: float
    low: float
    high: float

    def verdict(self, limit: float) -> str:
        """Says ``flat`` if growth beyond the limit is ruled out, ``growing`` if it is certain."""
        if self.high <= limit:
            return "flat"
        return "growing" if self.low > limit else "unclear: run it for longer"


def fit_slope(seconds: ArrayLike, values: ArrayLike) -> Slope:
    """Fits a line through a curve.

    Neighbours on a curve are alike, so that each point would count as more evidence than it is. The line goes
    through the means of ten stretches instead, which hardly depend on one another.

    Args:
        seconds: When each value was taken.
        values: At least two for each stretch.
    """
    hours = [float(part.mean()) / 3600 for part in np.array_split(np.asarray(seconds, float), BLOCKS)]
    means = [float(part.mean()) for part in np.array_split(np.asarray(values, float), BLOCKS)]
    fit = stats.linregress(hours, means)
    half = float(stats.t.ppf(0.975, BLOCKS - 2) * fit.stderr)
    return Slope(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)
