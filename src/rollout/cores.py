"""How many cores this process may use: those that it is scheduled on, within the CPU limit of its container."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP) -> int:
    """Returns the whole cores that are left to this process, at least 1.

    A container is scheduled on all cores of its node and held back after its share of each period: the count of
    the node's cores would start as many workers as all of them could bear.

    Args:
        cgroups: Where cgroup v2 is mounted.
        own_cgroup: What says where in it this process is.
    """
    with suppress(AttributeError):  # macOS schedules on all
        return max(1, int(min(len(os.sched_getaffinity(0)), *map(_limit, own_cgroups(cgroups, own_cgroup)))))
    return os.cpu_count() or 1


def own_cgroups(cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP) -> list[Path]:
    """Returns the folders of this process's cgroup and of those that it lies in; each may set limits.

    Args:
        cgroups: Where cgroup v2 is mounted.
        own_cgroup: What says where in it this process is.
    """
    with suppress(OSError):
        for line in own_cgroup.read_text().splitlines():
            if line.startswith("0::/"):
                own = cgroups / line.removeprefix("0::/")
                return [folder for folder in (own, *own.parents) if folder.is_relative_to(cgroups)]
    return [cgroups]


def _limit(folder: Path) -> float:
    """Reads ``cpu.max``: microseconds of CPU time in each period, or ``max``, and the length of the period."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return float(quota) / float(period)
    return float("inf")
