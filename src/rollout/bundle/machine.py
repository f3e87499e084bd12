"""The machine: what its processor, its GPU and its user are called."""

from __future__ import annotations

import getpass
import os
import platform
from pathlib import Path


def cpu_name() -> str:
    """Returns the processor's name where Linux tells it, else its architecture."""
    file = Path("/proc/cpuinfo")
    for line in file.read_text().splitlines() if file.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def user_name() -> str:
    """Returns who runs this; in a container that may be a number without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def gpu_name() -> str | None:
    """Returns the name of the GPU that torch can use here; ``None`` without one, and without torch."""
    try:
        import torch  # noqa: PLC0415  a worker that serves ONNX does without torch
    except ImportError:
        return None
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
