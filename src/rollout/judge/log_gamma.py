"""The logarithm of the gamma function, of arrays: SciPy's is not there where a model is served."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

SHIFT = 8


def log_gamma(values: ArrayLike) -> NDArray[np.float64]:
    """Returns ``log(gamma(x))`` of numbers above 0, to about ten digits.

    Stirling's series at ``x + 8``, from where the recurrence leads down (Abramowitz & Stegun, "Handbook of
    mathematical functions", 1964, 6.1.15 and 6.1.40).

    Example:
        >>> log_gamma([0.5, 5.0]).round(8).tolist()
        [0.57236494, 3.17805383]
    """
    x = np.asarray(values, np.float64)
    product = x.copy()
    for step in range(1, SHIFT):
        product *= x + step
    far = x + SHIFT
    inverse = 1 / far**2
    series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / far
    return np.asarray((far - 0.5) * np.log(far) - far + 0.5 * math.log(2 * math.pi) + series - np.log(product))
