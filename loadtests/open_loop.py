"""Open loop: requests arrive when they arrive, whether or not the earlier ones have been answered.

Latency counts from when a request was due. A server that stalls pays for everything that was due in the meantime,
which a client that waits for its answers would never have sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import aiohttp
import msgspec
import numpy as np
from numpy.typing import NDArray

from loadtests.bodies import Request

Times = NDArray[np.float64]

TIMEOUT_S = 10
# Gamma with this shape: half the gaps are far shorter than the mean, a few are many times as long.
BURSTY = 0.25
POISSON = 1.0


class Arrivals(msgspec.Struct):
    """What became of the requests of a schedule.

    Attributes:
        rate: Requests due a second, on average.
        requests: How many were due.
        p50_ms: Median latency, from when a request was due.
        p99_ms: Latency of the slowest hundredth.
        failures: Requests without an answer, or with another status than the one expected.
    """

    rate: float
    requests: int
    p50_ms: float
    p99_ms: float
    failures: int


def schedule(rate: float, seconds: float, shape: float = BURSTY, seed: int = 0) -> Times:
    """Returns when requests are due, in seconds from the start; gaps are gamma-distributed."""
    gaps = np.random.default_rng(seed).gamma(shape, 1 / (rate * shape), size=int(rate * seconds))
    due: Times = np.cumsum(gaps)
    return due


async def run(url: str, requests: Iterable[Request], due: Times) -> Arrivals:
    """Sends each request when it is due, and waits for all the answers."""
    loop, clock = asyncio.get_running_loop(), time.perf_counter
    latencies = np.zeros(len(due))
    failures = 0

    async def send(number: int, request: Request, at: float) -> None:
        nonlocal failures
        try:
            async with session.post(request.path, data=request.body, headers=request.headers) as response:
                await response.read()
                failures += response.status != request.status
        except (aiohttp.ClientError, TimeoutError):
            failures += 1
        latencies[number] = clock() - at

    def pace() -> None:
        """Runs in a thread: the event loop's own timers are a millisecond late."""
        start = clock()
        for number, (request, seconds) in enumerate(zip(requests, due.tolist(), strict=False)):
            at = start + seconds
            time.sleep(max(0.0, at - clock()))
            loop.call_soon_threadsafe(lambda *what: group.create_task(send(*what)), number, request, at)

    async with (
        aiohttp.ClientSession(
            url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(TIMEOUT_S)
        ) as session,
        asyncio.TaskGroup() as group,
    ):
        await asyncio.to_thread(pace)
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    return Arrivals(len(due) / float(due[-1]), len(due), float(p50), float(p99), failures)
