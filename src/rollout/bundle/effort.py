"""How much is compared while a bundle is packed, and on how many cores: by what a row costs."""

from __future__ import annotations

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
FEW_SIZES = (*range(1, 10), 16, 17, 32, 33, MAX_BATCH)


class Effort(NamedTuple):
    """What packing takes upon itself.

    Attributes:
        sizes: Sizes of the batches in which every variant must answer alike.
        random_rows: Rows drawn at random that are compared.
        threads: Threads that compute a batch. With one, the same numbers come out on every machine.
    """

    sizes: tuple[int, ...] = EVERY_SIZE
    random_rows: int = 256
    threads: int = 1


def take_effort(run: Run, rows: Arrays) -> Effort:
    """Measures what a row costs, says what to compare, and has torch compute on the threads for it."""
    few = take(rows, slice(0, 2))
    run(few)  # the first call prepares what later ones use
    seconds = min(seconds_of(run, few) for _ in range(3)) / count(few)
    effort = Effort() if seconds < COSTLY else Effort(FEW_SIZES, random_rows=64, threads=usable_cores())
    torch.set_num_threads(effort.threads)
    return effort


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
        on_progress: Called after each batch.
    """

    def __init__(self, rows: int, on_progress: Callable[[Packing], None]) -> None:
        self._rows = rows
        self._done = 0
        self._started = time.monotonic()
        self._tell = on_progress

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
        self._done = min(self._done + rows, self._rows)
        if self._done:
            taken = time.monotonic() - self._started
            self._tell(Packing(self._done / self._rows, taken * (self._rows / self._done - 1)))
