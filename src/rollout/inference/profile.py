"""The profile of a runtime: what batches cost on this machine, and how many rows are worth a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np

from rollout.bundle.parity import MAX_BATCH, count, take
from rollout.bundle.schema import Arrays

REPEATS = 5
# A larger batch, or one more batch at a time, must be worth this much throughput.
WORTH = 1.05
# Filling a batch that takes longer than this would keep its first row waiting for too long.
LONGEST_S = 0.25

Run = Callable[[Arrays], object]


class Profile(msgspec.Struct, frozen=True):
    """What batches cost.

    Attributes:
        seconds: Seconds of a batch of each size, from 0 rows to the largest that is worth it.
        in_flight: Batches that the runtime does best at a time.

    Example:
        >>> Profile(seconds=[0.0, 0.001, 0.0015], in_flight=1).rate
        1333.3333333333333
    """

    seconds: list[float]
    in_flight: int

    @property
    def max_batch(self) -> int:
        """Most rows that go into a batch."""
        return len(self.seconds) - 1

    @property
    def rate(self) -> float:
        """Rows a second in full batches."""
        return self.max_batch * self.in_flight / self.seconds[-1]


def measure(run: Run, examples: Arrays, cores: int) -> Profile:
    """Finds the knee of a runtime's throughput, and warms up every batch size up to there.

    Args:
        run: Scores a batch.
        examples: Rows to be scored, for each field an array of shape ``(rows, *field.shape)``.
        cores: Most batches to try at a time.
    """

    def batch(size: int) -> Arrays:
        return take(examples, np.arange(size) % count(examples))

    sizes, seconds = [1], [_time(run, batch(1))]
    while sizes[-1] < MAX_BATCH and seconds[-1] * 2 < LONGEST_S:
        sizes.append(sizes[-1] * 2)
        seconds.append(_time(run, batch(sizes[-1])))
    rates = np.array(sizes) / seconds
    knee = int(np.flatnonzero(rates * WORTH >= rates.max())[0])
    for size in range(1, sizes[knee] + 1):
        run(batch(size))
    known = np.interp(np.arange(sizes[knee] + 1), [0, *sizes], [0.0, *seconds])
    return Profile(known.tolist(), _batches_in_flight(run, batch(sizes[knee]), cores))


def _time(run: Run, inputs: Arrays) -> float:
    """The least of a few times: whatever else the machine does only ever adds to it."""
    run(inputs)
    return min(_once(run, inputs) for _ in range(REPEATS))


def _once(run: Run, inputs: Arrays) -> float:
    start = time.perf_counter()
    run(inputs)
    return time.perf_counter() - start


def _batches_in_flight(run: Run, inputs: Arrays, cores: int) -> int:
    """Tries one batch at a time, two, four; more of them must be worth it."""
    best, best_rate = 1, 0.0
    tried = 1
    while tried <= cores:
        with ThreadPoolExecutor(tried) as pool:
            rate = max(_rate(pool, run, inputs, tried) for _ in range(REPEATS))
        if rate < best_rate * WORTH:
            break
        best, best_rate = tried, rate
        tried *= 2
    return best


def _rate(pool: ThreadPoolExecutor, run: Run, inputs: Arrays, at_a_time: int) -> float:
    start = time.perf_counter()
    list(pool.map(run, [inputs] * at_a_time * 2))
    return at_a_time * 2 / (time.perf_counter() - start)
