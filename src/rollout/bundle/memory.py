"""Memory: what a variant takes while it runs, and what is left on a device."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from rollout.cores import own_cgroups

Made = TypeVar("Made")
OWN = Path("/proc/self")
MACHINE = Path("/proc/meminfo")
FORGET_PEAK = "5"  # what Linux takes for that, of proc(5)
MIB = 1024**2


def taken_by(make: Callable[[], Made], device: str) -> tuple[Made, int]:
    """Makes something, and returns with it by how many bytes the memory grew meanwhile at most; 0 if unknown.

    On the processor it is the peak of this process as Linux counts it, less what it had before. On a GPU it is
    what is no longer free: torch and onnxruntime keep what they once took.
    """
    before = _start(device)
    made = make()
    after = _resident("VmHWM") if device == "cpu" else free_memory(device)
    if before is None or after is None:
        return made, 0
    return made, max(0, after - before if device == "cpu" else before - after)


def free_memory(device: str) -> int | None:
    """Returns the bytes that are left on a device: within the container's limit, or on the card."""
    if device != "cpu":
        torch = sys.modules.get("torch")  # onnxruntime does not tell
        return int(torch.cuda.mem_get_info()[0]) if torch is not None and torch.cuda.is_available() else None
    free = []
    with suppress(OSError):
        free += [1024 * _kib(MACHINE, "MemAvailable")]
    for folder in own_cgroups():
        with suppress(OSError, ValueError, KeyError):  # `max` is no number
            limit = int((folder / "memory.max").read_text())
            cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())["file"]
            free.append(limit - int((folder / "memory.current").read_text()) + int(cached))
    return max(0, min(free)) if free else None


def in_words(size: int) -> str:
    """Writes a size."""
    return f"{size / MIB:,.0f} MiB"


def _start(device: str) -> int | None:
    if device != "cpu":
        return free_memory(device)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # or what was freed before would be taken again, and not be seen
    with suppress(OSError):
        (OWN / "clear_refs").write_text(FORGET_PEAK)
        return _resident("VmRSS")
    return None


def _resident(name: str) -> int | None:
    with suppress(OSError):
        return 1024 * _kib(OWN / "status", name)
    return None


def _kib(file: Path, name: str) -> int:
    """Reads a number of kibibytes of a file of Linux.

    Raises:
        OSError: If it has none of this name.
    """
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(os.strerror(2), str(file))
