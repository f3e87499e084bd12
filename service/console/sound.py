"""Rows of numbers as curves for SVG. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.wav import level

WIDTH, HEIGHT = 1000, 100
MOST_POINTS = 500


def waveform(samples: NDArray[Any]) -> str:
    """Returns the outline of a sound as an SVG path: of each stretch, its lowest and highest sample."""
    stretches = np.array_split(level(samples), min(len(samples), MOST_POINTS))
    xs = np.linspace(0, WIDTH, len(stretches))
    lows, highs = ([pick(one) for one in stretches] for pick in (np.min, np.max))
    upper = [f"{x:.1f},{(1 - y) * HEIGHT / 2:.1f}" for x, y in zip(xs, highs, strict=True)]
    lower = [f"{x:.1f},{(1 - y) * HEIGHT / 2:.1f}" for x, y in zip(xs, lows, strict=True)]
    return f"M{' '.join(upper + lower[::-1])}Z"


def curve(numbers: NDArray[Any]) -> str:
    """Returns numbers, shape ``(numbers,)``, as an SVG path from the lowest to the highest."""
    values = numbers.astype(np.float64)
    stretches = np.array_split(values, min(len(values), MOST_POINTS))
    low, spread = values.min(), float(np.ptp(values)) or 1.0
    heights = [HEIGHT * (1 - (one.mean() - low) / spread) for one in stretches]
    points = zip(np.linspace(0, WIDTH, len(heights)), heights, strict=True)
    return f"M{' '.join(f'{x:.1f},{y:.1f}' for x, y in points)}"
