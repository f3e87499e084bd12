"""A process that runs what is not ours, within bounds that it cannot leave.

While a model runs in C++, no signal reaches Python. It is the system that ends such a process: when its time is
over, or when the process that waits for it has ended.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from rollout.cores import own_cgroups

ORPHANED = 3
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def bound(seconds: int, parent: int, memory_share: float) -> None:
    """Has this process end after its time, or with its parent, and gives it a part of the memory.

    Args:
        seconds: After which SIGALRM ends it.
        parent: The ID of the process that waits for it.
        memory_share: Of the usable memory, what it may have beyond what it has.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    end_with_parent()
    if os.getppid() != parent:  # it ended before
        sys.exit(ORPHANED)
    limit_memory(int(usable_memory() * memory_share))


def usable_memory() -> int:
    """Returns the bytes of memory of the machine, or of the container if these are fewer."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for folder in own_cgroups():
        with suppress(OSError, ValueError):  # `max` is no number
            most = min(most, int((folder / "memory.max").read_text()))
    return most


def limit_memory(further: int) -> None:
    """Gives this process so many bytes beyond those that it has; where memory is short, it is ended first.

    Only on Linux, which counts what can be written to (RLIMIT_DATA). A limit of addresses (RLIMIT_AS) would count
    what libraries reserve and never use.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        most = pages * resource.getpagesize() + further
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Has the system send this process a signal when its parent ends, on Linux.

    Args:
        number: The signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
