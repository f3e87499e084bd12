"""What every field of an input schema has in common: a type on the wire, and a decoder to an array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from rollout.bundle.columns import cell, is_ragged
from rollout.errors import BundleError

LARGEST_ROW = 16 * 1024 * 1024  # of a free length, in bytes


class Free(NamedTuple):
    """A dimension that each row has its own size in.

    Attributes:
        name: Its name.
        longest: Its largest size; the smallest is 1.
        is_shared: Whether fields that give it the same name have one size in a row.
    """

    name: str
    longest: int
    is_shared: bool = True


class WireField(msgspec.Struct, frozen=True, tag_field="kind"):
    """One named input of a model.

    A field has ``shape`` and ``dtype`` of one row as the module gets it, and does no arithmetic on a value: every
    numeric step belongs into the module, and so into every variant of it. One that is free in its first dimension
    makes ragged columns, see ``columns``.
    """

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        raise NotImplementedError

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        raise NotImplementedError

    def decode(self, value: Any) -> NDArray[Any]:
        """Turns a value that passed ``wire_type`` into an array of ``shape`` and ``dtype``.

        Raises:
            ValueError: If the value does not fit after all; the sentence says why.
        """
        raise NotImplementedError

    @property
    def free(self) -> Free | None:
        """The dimension that each row has its own size in, if any: the first."""
        return None

    @property
    def step_shape(self) -> tuple[int, ...]:
        """Shape of one row without its free dimension."""
        shape: tuple[int, ...] = self.shape  # type: ignore[attr-defined]  # every field has one
        return shape

    def shaped(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Gives the numbers of one row its shape; those of a row with a length of its own become a cell."""
        if self.free is None:
            return numbers.reshape(self.step_shape)
        return cell(numbers.reshape(-1, *self.step_shape))

    def check(self, column: NDArray[Any]) -> None:
        """Checks a column of shape ``(rows, *shape)``, or a ragged one.

        Raises:
            BundleError: If its shape or dtype does not fit.
        """
        dtype: str = self.dtype  # type: ignore[attr-defined]  # every field has one
        if self.free is None:
            if column.shape[1:] != self.step_shape or column.dtype != np.dtype(dtype):
                raise BundleError(
                    f"expected shape (rows, {', '.join(map(str, self.step_shape))}) and {dtype}, "
                    f"got {column.shape} and {column.dtype}"
                )
            return
        if not is_ragged(column) or column.ndim != 1:
            raise BundleError(
                f"expected rows of any length, as the field's encode() makes them, got {column.shape} and "
                f"{column.dtype}"
            )
        for number, row in enumerate(column):
            if row.shape[1:] != self.step_shape or row.dtype != np.dtype(dtype):
                raise BundleError(
                    f"row {number}: expected {dtype} and {self.expected}, got {row.dtype}, {row.shape}"
                )
            if not 1 <= len(row) <= self.free.longest:
                raise BundleError(
                    f"row {number}: it has {len(row)} {self.free.name}, not 1 to {self.free.longest}"
                )

    def require(self) -> None:
        """Makes sure that values can be decoded here.

        Raises:
            BundleError: If what decodes them is not installed.
        """

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer, to be written as JSON: what a caller could have sent.

        Args:
            sent: The JSON value that came, or ``None`` where numbers came in another form.
            array: What it was decoded to.
        """
        return array.tolist() if sent is None else sent

    def encode(self, values: Sequence[Any]) -> NDArray[Any]:
        """Turns values as a caller would send them into a batch, shape ``(rows, *shape)``: for training code.

        Raises:
            ValueError: If a value does not fit.
        """
        return np.stack([self.decode(msgspec.convert(value, self.wire_type)) for value in values])


def nested(element: Any, shape: Iterable[int]) -> Any:
    """Returns the type of nested lists of ``element`` with exactly this shape."""
    wire = element
    for size in reversed(tuple(shape)):
        wire = Annotated[list[wire], Meta(min_length=size, max_length=size)]  # type: ignore[valid-type]
    return wire
