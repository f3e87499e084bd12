"""A worker that hangs ends within the limit; one that is only busy does not."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, logging, threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from rollout.inference.batcher import Batcher
from rollout.inference.profile import Profile
from rollout.inference.watchdog import Watchdog

logging.basicConfig()

async def main():
    def run(arrays):
        time.sleep({batch_s})
        return [0]
    batcher = Batcher(
        run, Profile(seconds=[0, {expected_s}], in_flight=1), longest_wait=1, executor=ThreadPoolExecutor(1),
        hang_s=1,
    )
    Watchdog(lambda: "the runtime" if batcher.hangs() else None, limit=1)
    batcher.submit({{"x": np.zeros(1)}}, time.monotonic() + 100)
    await asyncio.sleep(0.2)
    time.sleep({loop_s})
    await asyncio.sleep(3)
    print("still here")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("batch_s", "expected_s", "loop_s", "says"),
    [
        (60, 0.01, 0, "the runtime hangs; this worker ends, to be replaced"),
        (0.01, 0.01, 60, "the event loop, for 1 s hangs; this worker ends, to be replaced"),
        (2, 0.5, 0, None),
        (0.01, 0.01, 0.5, None),
    ],
)
def test_a_worker_that_hangs_ends(batch_s: float, expected_s: float, loop_s: float, says: str | None) -> None:
    script = SCRIPT.format(batch_s=batch_s, expected_s=expected_s, loop_s=loop_s)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    if says is None:
        assert (done.returncode, done.stdout) == (0, "still here\n")
    else:
        assert done.returncode == -signal.SIGKILL
        assert says in done.stderr
