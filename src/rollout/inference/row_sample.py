"""A random sample of the rows that pass by, of bounded size: what is looked at where all would cost too much."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays

Numbers = NDArray[np.float64]

MOST_ROWS = 256
MOST_BYTES = 8 * 1024 * 1024


class Taken(NamedTuple):
    """The rows of a sample.

    Attributes:
        arrays: For each field an array of shape ``(rows, *field.shape)``.
        numbers: What was decided on them, shape ``(rows, head.columns)``.
        clients: The client of each.
        seen: How many rows they were drawn from.
    """

    arrays: Arrays
    numbers: Numbers
    clients: list[str]
    seen: int


class RowSample:
    """A uniform random sample of the rows since it was last taken: algorithm L of Li (1994), without replacement.

    It draws how many rows to pass over until the next that is kept, so that a row that is not kept costs an
    addition.

    Reference:
        Kim-Hung Li, "Reservoir-Sampling Algorithms of Time Complexity O(n(1 + log(N/n)))", ACM TOMS 20 (1994).

    Args:
        most: Rows that it holds at most; where they are large, as many as ``MOST_BYTES`` hold, and one at least.
        draw: Returns random numbers from 0 to 1.
    """

    def __init__(self, most: int = MOST_ROWS, draw: random.Random | None = None) -> None:
        self._limit = most
        self._random = draw or random.Random()  # noqa: S311  nothing is secret
        self._clear()

    def _clear(self) -> None:
        self._most = self._limit
        self._rows: list[tuple[Arrays, Numbers, str]] = []
        self._bytes = 0
        self._seen = 0
        self._next = 0  # the number of the next row that is kept
        self._weight = 1.0

    def offer(self, arrays: Arrays, numbers: Numbers, clients: Sequence[str], places: Sequence[int]) -> None:
        """Passes rows by.

        Args:
            arrays: Of a batch, for each field an array of shape ``(rows, *field.shape)``; not changed later.
            numbers: What was decided, shape ``(rows, columns)``; not changed later.
            clients: The client of each row.
            places: Which rows of the batch.
        """
        begin = self._seen
        self._seen += len(places)
        while self._next < self._seen:
            place = places[self._next - begin]
            self._keep(*_row(arrays, numbers, place), clients[place])

    def take(self) -> Taken | None:
        """Returns what was sampled, and begins anew; ``None`` where no row passed by."""
        rows, seen = self._rows, self._seen
        self._clear()
        if not rows:
            return None
        each, numbers, clients = zip(*rows, strict=True)
        arrays = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        return Taken(arrays, np.concatenate(numbers), list(clients), seen)

    def _drop(self) -> Arrays:
        """Leaves out one of the rows, whichever, and returns it."""
        place = self._random.randrange(len(self._rows))
        self._rows[place], self._rows[-1] = self._rows[-1], self._rows[place]
        return self._rows.pop()[0]

    def _keep(self, row: Arrays, numbers: Numbers, client: str) -> None:
        if len(self._rows) < self._most:
            self._rows.append((row, numbers, client))
            self._bytes += _size(row)
            if self._bytes >= MOST_BYTES:
                self._most = len(self._rows)
            self._next += 1
            if len(self._rows) < self._most:
                return
        else:
            self._bytes += _size(row) - _size(self._drop())
            self._rows.append((row, numbers, client))
            while self._bytes > MOST_BYTES and len(self._rows) > 1:
                self._bytes -= _size(self._drop())
            self._most = len(self._rows)
            self._next += 1
        self._weight *= math.exp(math.log(1 - self._random.random()) / self._most)
        self._next += math.floor(math.log(1 - self._random.random()) / math.log1p(-self._weight))


def _row(arrays: Arrays, numbers: Numbers, place: int) -> tuple[Arrays, Numbers]:
    """Returns one row; of several, a copy, which does not hold on to the others."""
    if len(numbers) == 1:
        return arrays, numbers
    own = slice(place, place + 1)
    return {name: one.copy() for name, one in take(arrays, own).items()}, numbers[own].copy()


def _size(row: Arrays) -> int:
    """Returns the bytes of a row."""
    return sum(
        sum(each.nbytes for each in column) if column.dtype == object else column.nbytes
        for column in row.values()
    )
