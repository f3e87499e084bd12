"""The profile of a runtime: what batches cost on this machine, and how many rows are worth a batch."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle.parity import MAX_BATCH, count, seconds_of, take
from rollout.bundle.schema import Arrays
from rollout.inference.load import Load, loads

REPEATS = 5
# A larger batch, or one more batch at a time, must be worth this much throughput.
WORTH = 1.05
# Filling a batch that takes longer than this would keep its first row waiting for too long.
LONGEST_S = 0.25
# A short row never counts for less than this share of a typical one.
LIGHTEST = 0.1

Run = Callable[[Arrays], object]


class Profile(msgspec.Struct, frozen=True):
    """What batches cost.

    Attributes:
        seconds: Seconds of a batch of each size, from 0 rows to the largest that is worth it.
        in_flight: Batches that the runtime does best at a time.
        typical: Where rows have lengths of their own, the bytes of the row that was measured: the median of the
            golden examples.
        longest: The bytes of the longest golden example.
        stretch: How many times the former a row of that length costs.

    Example:
        >>> Profile(seconds=[0.0, 0.001, 0.0015], in_flight=1).rate
        1333.3333333333333
    """

    seconds: list[float]
    in_flight: int
    typical: int = 0
    longest: int = 0
    stretch: float = 1.0

    def weigh(self, load: Load) -> float:
        """Returns how many rows of typical length cost as much; costs in between and beyond lie on a line."""
        if self.longest == self.typical:
            return load.rows
        beyond = (sum(load.longest) - self.typical) / (self.longest - self.typical)
        return load.rows * max(1 + (self.stretch - 1) * beyond, LIGHTEST)

    def estimate(self, load: Load) -> float:
        """Returns the seconds of a batch, of at most ``max_batch`` rows."""
        return self.seconds[load.rows] * (self.weigh(load) / load.rows)

    def takes(self, load: Load) -> bool:
        """Whether rows may share a batch: they cost no more than a full one, and waste little on padding."""
        return load.rows <= self.max_batch and load.is_tight and self.weigh(load) <= self.max_batch

    @property
    def max_batch(self) -> int:
        """Most rows that go into a batch."""
        return len(self.seconds) - 1

    @property
    def slowest(self) -> float:
        """Seconds of a full batch, or of one row of the longest."""
        return max(self.seconds[-1], self.seconds[1] * self.stretch)

    @property
    def rate(self) -> float:
        """Rows a second in full batches."""
        return self.max_batch * self.in_flight / self.seconds[-1]


def measure(run: Run, examples: Arrays, cores: int) -> Profile:
    """Finds the knee of a runtime's throughput, and warms up every batch size up to there.

    Args:
        run: Scores a batch.
        examples: Rows to be scored, for each field an array of shape ``(rows, *field.shape)`` or a ragged column.
        cores: Most batches to try at a time.
    """
    order, held = loads(examples)
    typical = _Repeated(examples, np.arange(count(examples)) if order is None else order[len(order) // 2 :][:1])
    sizes, seconds = _curve(run, typical, MAX_BATCH)
    rates = np.array(sizes) / seconds
    knee = int(np.flatnonzero(rates * WORTH >= rates.max())[0])
    for size in range(1, sizes[knee] + 1):
        run(typical.batch(size))
    known = np.interp(np.arange(sizes[knee] + 1), [0, *sizes], [0.0, *seconds])
    in_flight = _batches_in_flight(run, typical.batch(sizes[knee]), cores)
    if order is None:
        return Profile(known.tolist(), in_flight)
    bytes_typical, bytes_longest = held[len(order) // 2].held, held[-1].held
    long_sizes, long_seconds = _curve(run, _Repeated(examples, order[-1:]), sizes[knee])
    stretch = max(1.0, long_seconds[-1] / known[long_sizes[-1]])
    return Profile(known.tolist(), in_flight, bytes_typical, bytes_longest, stretch)


class _Repeated:
    """Batches of the same few rows, over and over."""

    def __init__(self, examples: Arrays, rows: Sequence[int] | NDArray[np.int_]) -> None:
        self._examples, self._rows = examples, np.array(rows)

    def batch(self, size: int) -> Arrays:
        return take(self._examples, self._rows[np.arange(size) % len(self._rows)])


def _curve(run: Run, rows: _Repeated, most: int) -> tuple[list[int], list[float]]:
    """Times batches of 1, 2, 4 rows, up to those that nobody would wait for."""
    sizes, seconds = [1], [_time(run, rows.batch(1))]
    while sizes[-1] * 2 <= most and seconds[-1] * 2 < LONGEST_S:
        sizes.append(sizes[-1] * 2)
        seconds.append(_time(run, rows.batch(sizes[-1])))
    return sizes, seconds


def _time(run: Run, inputs: Arrays) -> float:
    """The least of a few times: whatever else the machine does only ever adds to it."""
    run(inputs)
    return min(_repeated(lambda: seconds_of(run, inputs)))


def _repeated(timed: Callable[[], float]) -> Iterator[float]:
    """Yields what is timed, again and again, but not for longer than a row is kept waiting."""
    start = time.perf_counter()
    for _ in range(REPEATS):
        yield timed()
        if time.perf_counter() - start > LONGEST_S:
            return


def _batches_in_flight(run: Run, inputs: Arrays, cores: int) -> int:
    """Tries one batch at a time, two, four; more of them must be worth it."""
    best, best_rate = 1, 0.0
    tried = 1
    while tried <= cores:
        with ThreadPoolExecutor(tried) as pool:
            rate = max(_repeated(functools.partial(_rate, pool, run, inputs, tried)))
        if rate < best_rate * WORTH:
            break
        best, best_rate = tried, rate
        tried *= 2
    return best


def _rate(pool: ThreadPoolExecutor, run: Run, inputs: Arrays, at_a_time: int) -> float:
    start = time.perf_counter()
    list(pool.map(run, [inputs] * at_a_time * 2))
    return at_a_time * 2 / (time.perf_counter() - start)
