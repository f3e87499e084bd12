"""How much is compared while a bundle is packed, and on how many cores: by what a row costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from rollout.bundle.parity import MAX_BATCH, Run, count, seconds_of, take
from rollout.bundle.schema import Arrays
from rollout.cores import usable_cores
from rollout.heads import Scores

# A row above this, in seconds, is costly: batches of every size would take more than ten seconds a variant.
COSTLY = 0.005
EVERY_SIZE = tuple(range(1, MAX_BATCH + 1))
# The small sizes, where kernels change from one to the next; sizes that fill their blocks, and one row more.
FEW_SIZES = (*range(1, 10), 16, 17, 32, MAX_BATCH)
# What a few rows of a large network give stays in the cache: MobileNetV2 took 17 ms a row of eight, and 30 of 64.
FEW_ROWS = 8
CLEARLY = 0.8


class Effort(NamedTuple):
    """What packing takes upon itself.

    Attributes:
        sizes: Sizes of the batches in which every variant must answer alike, the largest last.
        random_rows: Rows drawn at random that are compared.
        precise_rows: Rows of each set that are scored in double precision.
        batch_size: Rows of a batch where any size would do.
        at_a_time: Batches of a variant at a time, each on one thread. Those of a source come one by one: it is
            somebody's code.
        threads: Threads in which the source computes a batch.
        is_costly: Whether a row takes long.
    """

    sizes: tuple[int, ...] = EVERY_SIZE
    random_rows: int = 256
    precise_rows: int = 8
    batch_size: int = MAX_BATCH
    at_a_time: int = 1
    threads: int = 1
    is_costly: bool = False


def take_effort(run: Run, rows: Arrays) -> Effort:
    """Measures what a row costs, says what to compare, and has torch compute on the threads for it."""
    few = take(rows, slice(0, 2))
    seconds = _on_threads(1, run, few)
    if seconds < COSTLY * count(few):
        return Effort()
    cores = usable_cores()
    # Where others use the same cores, the threads of a batch wait for each other for longer than they compute.
    threads = cores if cores > 1 and _on_threads(cores, run, few) < CLEARLY * seconds else 1
    torch.set_num_threads(threads)
    return Effort(FEW_SIZES, 64, 4, FEW_ROWS, cores, threads, is_costly=True)


def _on_threads(threads: int, run: Run, rows: Arrays) -> float:
    torch.set_num_threads(threads)
    run(rows)  # the first call prepares what later ones use
    return min(seconds_of(run, rows) for _ in range(3))


@contextmanager
def threads_kept() -> Iterator[None]:
    """Has torch compute afterwards on as many threads as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Packing(NamedTuple):
    """How far packing is.

    Attributes:
        share: Of the rows to score, those that are.
        seconds_left: About how long the others take.
    """

    share: float
    seconds_left: float


class RowsToScore:
    """Counts the rows that are scored while packing, to say how far it is.

    Args:
        rows: All that there will be.
        on_progress: Called after each batch, by one thread at a time.
    """

    def __init__(self, rows: int, on_progress: Callable[[Packing], None]) -> None:
        self._rows = rows
        self._done = 0
        self._started = time.monotonic()
        self._tell = on_progress
        self._lock = threading.Lock()

    def counting(self, run: Run) -> Run:
        """Returns what scores a batch and counts its rows."""

        def counted(inputs: Arrays) -> Scores:
            scores = run(inputs)
            self._add(count(inputs))
            return scores

        return counted

    def reach(self, rows: int) -> None:
        """Has what comes before so many rows behind it, scored or not."""
        self._done = max(self._done, min(rows, self._rows))

    def _add(self, rows: int) -> None:
        with self._lock:
            self._done = min(self._done + rows, self._rows)
            if self._done:
                taken = time.monotonic() - self._started
                self._tell(Packing(self._done / self._rows, taken * (self._rows / self._done - 1)))
