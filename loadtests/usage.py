"""What a server takes: CPU time and memory of a process and of all that hangs below it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType

import psutil

EVERY_S = 0.5
MIB = 1024**2


def family(process: psutil.Process) -> Iterator[psutil.Process]:
    """Yields a process and its descendants."""
    yield process
    yield from process.children(recursive=True)


def cpu_seconds(process: psutil.Process) -> float:
    """Returns the CPU time that the living of a family have taken so far."""
    total = 0.0
    for one in family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def memory_mib(process: psutil.Process) -> float:
    """Returns the memory of a family; pages that several of them share count once (PSS)."""
    total = 0
    for one in family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_full_info().pss
    return total / MIB


class Peak:
    """The largest memory of a family while the block runs.

    Args:
        process: The head of the family.
    """

    def __init__(self, process: psutil.Process) -> None:
        self.mib = 0.0
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            self.mib = max(self.mib, memory_mib(self._process))
