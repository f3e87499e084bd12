"""Rows of numbers as a WAV file, and as curves for SVG. Pure."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 1000, 100
MOST_POINTS = 500


def wav(samples: NDArray[Any], rate: int) -> bytes:
    """Returns samples as a WAV file with one channel of 16 bits.

    Args:
        samples: Shape ``(samples,)``. ``float32`` lies between -1 and 1, ``int64`` in 16 bits and ``uint8``
            around 128, as in WAV files; what is louder is turned down to fit.
        rate: Samples a second.
    """
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((_level(samples) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def waveform(samples: NDArray[Any]) -> str:
    """Returns the outline of a sound as an SVG path: of each stretch, its lowest and highest sample."""
    stretches = np.array_split(_level(samples), min(len(samples), MOST_POINTS))
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


def _level(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Returns samples between -1 and 1."""
    level = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        level = (level - 128) / 128
    elif samples.dtype == np.int64:
        level /= 32768
    return level / max(1.0, float(np.abs(level).max(initial=0)))
