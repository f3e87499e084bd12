"""What rows are as one batch: how many, and how much of it would be padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rollout.bundle.columns import is_ragged, sizes
from rollout.bundle.schema import Arrays

# A padded batch has at most so many times the bytes of its rows, and at most so many bytes,
WASTE = 1.5
LARGEST_BYTES = 64 * 1024 * 1024
# but where it has no more bytes than this, one more batch would cost more than the padding.
SMALL_BYTES = 64 * 1024


class Load(NamedTuple):
    """Rows of one batch.

    Attributes:
        rows: How many.
        longest: Bytes of the longest of them in each ragged column, which is what all of them take there.
        held: Bytes of all of them in the ragged columns, without padding.
    """

    rows: int
    longest: tuple[int, ...] = ()
    held: int = 0

    def beside(self, other: Load) -> Load:
        """Returns both in one batch."""
        longest = tuple(map(max, self.longest, other.longest)) if self.rows else other.longest
        return Load(self.rows + other.rows, longest, self.held + other.held)

    @property
    def is_tight(self) -> bool:
        """Whether little of it is padding, and it is not too large."""
        return self.rows * sum(self.longest) <= min(LARGEST_BYTES, max(SMALL_BYTES, WASTE * self.held))


NOTHING = Load(0)


def loads(arrays: Arrays) -> tuple[Sequence[int] | None, list[Load]]:
    """Returns the rows of ragged columns from short to long, and each as a load; nothing where no column is."""
    if not any(map(is_ragged, arrays.values())):
        return None, []
    held = sizes(arrays)
    order = np.argsort(held.sum(1), kind="stable")
    return order.tolist(), [Load(1, tuple(row), sum(row)) for row in held[order].tolist()]
