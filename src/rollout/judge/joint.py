"""All features together: what no feature shows alone, such as two that no longer go together.

The maximum mean discrepancy (Gretton et al., "A kernel two-sample test", 2012) of a Gaussian kernel, by random
Fourier features (Rahimi & Recht, "Random features for large-scale kernel machines", 2007), whose sums add up.
"""

from __future__ import annotations

from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Random features, and the principal components of them that are summed up.
WAVES = 64
AXES = 16
MOST_SUMS = 1 + AXES
# Of features that are looked at together, the first.
MOST_TOGETHER = 64
# Of an axis, as a share of the largest: below, it is noise.
LEAST_VARIANCE = 0.01
DIGITS = 6
SEED = 20_261_129
LEAST_ROWS = 100


class Joint(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Random features of all features together, of which live rows are summed up.

    Attributes:
        seed: Of the random directions.
        features: How many features it takes, the first ones.
        mean: Of the random features over the evaluation part, shape ``(WAVES,)``.
        axes: The principal components that they are summed up along, each of shape ``(WAVES,)``.
        variances: The variance of the evaluation part along each.
    """

    seed: int = SEED
    features: int
    mean: list[float]
    axes: list[list[float]]
    variances: list[float]

    def __post_init__(self) -> None:
        shapes = {len(self.mean), *map(len, self.axes)}
        fits = shapes == {WAVES} and 0 < len(self.axes) == len(self.variances) <= AXES
        is_drawn = 0 <= self.seed < 2**32 and 0 < self.features <= MOST_TOGETHER
        # Of waves between -1 and 1, and axes of length 1.
        if not fits or not is_drawn or not all(10.0**-DIGITS / 2 < each <= 1 for each in self.variances):
            raise ValueError("random features do not fit their sums")
        if not all(abs(each) <= 1 for row in (self.mean, *self.axes) for each in row):
            raise ValueError("random features are none")

    @classmethod
    def of(cls, scores: Floats) -> Joint | None:
        """Sums up the evaluation part; ``None`` where all its rows are the same, or they are too few.

        Args:
            scores: Where its rows lie in each feature, from -1 to 1, shape ``(rows, features)``.
        """
        count = min(scores.shape[1], MOST_TOGETHER)
        waves = _waves(scores[:, :count], *_directions(SEED, count))
        mean = waves.mean(0)
        variances, axes = np.linalg.eigh(np.cov(waves, rowvar=False, ddof=0).reshape(WAVES, WAVES))
        least = max(LEAST_VARIANCE * variances.max(), 10.0**-DIGITS)
        kept = [place for place in np.argsort(-variances)[:AXES].tolist() if variances[place] > least]
        if not kept or len(scores) < LEAST_ROWS:
            return None
        return cls(
            features=count,
            mean=mean.round(DIGITS).tolist(),
            axes=axes.T[kept].round(DIGITS).tolist(),
            variances=variances[kept].round(DIGITS + 2).tolist(),
        )

    @property
    def size(self) -> int:
        """The length of its part of a sketch: the rows, and a sum for each axis."""
        return 1 + len(self.axes)

    def measure(self, scores: Floats) -> Floats:
        """Returns the number of rows, and their sums along the axes, shape ``(size,)``."""
        waves = _waves(scores[:, : self.features], *self._drawn) - np.array(self.mean)
        return np.concatenate([[float(len(scores))], np.array(self.axes) @ waves.sum(0)])

    @cached_property
    def _drawn(self) -> tuple[Floats, Floats]:
        return _directions(self.seed, self.features)


def _directions(seed: int, features: int) -> tuple[Floats, Floats]:
    """Draws frequencies and phases; of ``RandomState``, whose numbers stay the same in every NumPy.

    Scores are uniform, with the variance 1/3: the kernel is about as wide as rows are apart in the mean.
    """
    drawn = np.random.RandomState(seed)
    width = np.sqrt(features * 2 / 3)
    return drawn.standard_normal((features, WAVES)) / width, drawn.uniform(0, 2 * np.pi, WAVES)


def _waves(scores: Floats, frequencies: Floats, phases: Floats) -> Floats:
    return np.asarray(np.sqrt(2 / WAVES) * np.cos(scores @ frequencies + phases))
