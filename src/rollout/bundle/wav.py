"""Samples as a WAV file, which browsers play."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        writer.writeframes((level(samples) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def level(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Returns samples between -1 and 1."""
    level = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        level = (level - 128) / 128
    elif samples.dtype == np.int64:
        level /= 32768
    return level / max(1.0, float(np.abs(level).max(initial=0)))
