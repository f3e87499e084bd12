"""The worker processes of a running Rollout."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import msgspec
import psutil

from loadtests.usage import MIB


class Worker(msgspec.Struct):
    """A worker process.

    Attributes:
        uss_mib: Memory that is its own.
        rss_mib: Memory that it holds, shared or not.
        has_torch: Whether torch is loaded in it.
    """

    uss_mib: float
    rss_mib: float
    has_torch: bool


def find_workers(server: psutil.Process) -> list[psutil.Process]:
    """Returns the processes below a server that have onnxruntime loaded, less the one they are forked from."""
    loaded = [one for one in server.children(recursive=True) if "onnxruntime" in _maps(one)]
    parents = {one.ppid() for one in loaded}
    return [one for one in loaded if one.pid not in parents]


def look_at(worker: psutil.Process) -> Worker:
    """Measures a worker."""
    memory = worker.memory_full_info()
    return Worker(memory.uss / MIB, memory.rss / MIB, "libtorch" in _maps(worker))


def count_metric(url: str, name: str) -> int:
    """Returns the sum of a counter over all its labels, as ``/metrics`` tells it."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:  # noqa: S310
        lines = response.read().decode().splitlines()
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{")))


def _maps(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/maps").read_text()
