"""What a module returns, taken apart: tensors by name, each a few columns of one table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class Part(NamedTuple):
    """A tensor that a module returns.

    Attributes:
        shape: Its shape for one row.
        alone: What the columns are where the module gives one number a row, shape ``()`` or ``(1,)``; ``None``
            stands for that number. Empty where it may not.
        takes_integers: Whether it may be of whole numbers or truth values.
    """

    shape: Shape
    alone: tuple[float | None, ...] = ()
    takes_integers: bool = False

    @property
    def width(self) -> int:
        """Columns of the table that it fills."""
        return math.prod(self.shape)

    def fits(self, shape: Shape) -> bool:
        """Whether a module may return this shape for each row."""
        return shape == self.shape or (bool(self.alone) and shape in {(), (1,)})

    def columns(self, given: NDArray[Any]) -> NDArray[np.float32]:
        """Makes columns of what was given for some rows, ``float32`` of shape ``(rows, width)``."""
        if given.shape[1:] == self.shape or not self.alone:
            return given.reshape(len(given), self.width).astype(np.float32)
        one = given.reshape(-1, 1)
        own = [one if number is None else np.full_like(one, number) for number in self.alone]
        return np.concatenate(own, axis=1, dtype=np.float32)


# One tensor, or several by name, in their order where a module returns a tuple.
Parts = Part | Mapping[str, "Parts"]


def named(parts: Parts, name: str = "") -> Iterator[tuple[str, Part]]:
    """Yields the tensors with their names, such as ``head.part``, in the order of their columns."""
    if isinstance(parts, Part):
        yield name, parts
    else:
        for inside, part in parts.items():
            yield from named(part, f"{name}.{inside}" if name else inside)


def leaves(parts: Parts) -> list[Part]:
    """Returns the tensors, in the order of their columns."""
    return [part for _, part in named(parts)]


def width(parts: Parts) -> int:
    """Returns how many columns the table of all tensors has."""
    return sum(part.width for part in leaves(parts))
