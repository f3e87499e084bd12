"""Sound files for tests."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray


def tone(seconds: float, rate: int, hertz: float = 440, level: float = 0.5) -> NDArray[np.float32]:
    """Returns a sine."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def sound(samples: NDArray[Any], rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Returns a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def in_base64(data: bytes) -> str:
    """Returns a file as a request has it."""
    return base64.b64encode(data).decode()
