"""The ceiling: onnxruntime alone in a process, one thread, no server.

``python -m loadtests.in_process model.onnx`` prints what it measured as JSON.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil

from loadtests.bodies import BATCH, images
from loadtests.peers.model import Model
from loadtests.usage import MIB

SECONDS = 1.0  # for each size of batch


class Alone(msgspec.Struct):
    """What a file does by itself.

    Attributes:
        rows_1: Rows a second, one at a time.
        rows_64: Rows a second in batches of 64.
        session_mib: Memory of one session that has seen every size of batch.
    """

    rows_1: float
    rows_64: float
    session_mib: float


def measure(onnx: Path) -> Alone:
    """Measures a file in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.in_process"],
        env=os.environ | {"BENCH_ONNX": str(onnx)},
        capture_output=True,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Alone)


def _rate(model: Model, size: int) -> float:
    batch, rows, start = images()[:size], 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        model.score(batch)
        rows += size
    return rows / passed


def _main() -> None:
    Model().score(images()[:BATCH])  # what the first session of a process needs is not the second one's
    before = psutil.Process().memory_full_info().uss
    model = Model()
    for size in range(1, BATCH + 1):
        model.score(images()[:size])
    session = (psutil.Process().memory_full_info().uss - before) / MIB
    found = Alone(_rate(model, 1), _rate(model, BATCH), session)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    _main()
