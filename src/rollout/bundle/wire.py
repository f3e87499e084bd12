"""What every field of an input schema has in common: a type on the wire, and a decoder to an array."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta
from numpy.typing import NDArray

from rollout.bundle.apart import Apart, one_feature
from rollout.bundle.columns import cell, flat, is_ragged, lengths
from rollout.errors import NO_JSON, BundleError
from rollout.judge.features import Features, number, of_rows, spread

if TYPE_CHECKING:
    from rollout.bundle.image_file import PixelBudget

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

    Attributes:
        is_image: Whether it is a picture, in which things lie somewhere.
        is_text: Whether the JSON value is a string that says what it says as plain text, too.
        media_types: Of the files that may stand in the place of the JSON value; in JSON they are in base64.
    """

    is_image: ClassVar[bool] = False
    is_text: ClassVar[bool] = False
    media_types: ClassVar[tuple[str, ...]] = ()

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Shape of one row, without the batch dimension; a free one is its name."""
        raise NotImplementedError

    @property
    def dtype(self) -> Literal["float32", "int64", "uint8"]:
        """The dtype of the array that the model takes."""
        raise NotImplementedError

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        raise NotImplementedError

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        raise NotImplementedError

    @property
    def parts(self) -> Mapping[str, WireField]:
        """The fields that a value is made of, where it is made of several."""
        return {}

    @property
    def limits(self) -> tuple[Any, Any] | None:
        """The smallest and the largest number taken; ``None`` where a value is no number."""
        return None

    @property
    def moves(self) -> str:
        """Why a place in what the module gets is not the same part of what was sent; empty where it is."""
        return ""

    @property
    def missing(self) -> NDArray[Any] | None:
        """What the module gets for a row without a value; ``None`` where every row must have one."""
        return None

    @property
    def fill(self) -> NDArray[Any] | None:
        """What the module gets where a number is NaN; ``None`` where none may be."""
        return None

    @property
    def may_be_nan(self) -> NDArray[np.bool_] | bool:
        """Which numbers of a row may be NaN."""
        return self.fill is not None

    def declaration(self, name: str) -> tuple[Any, ...]:
        """Returns type and, where it may be left out, what counts then, as ``msgspec.defstruct`` takes them.

        Args:
            name: What the type is called, if it is one with a name.
        """
        del name
        return (self.wire_type,)

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
        return tuple(size for size in self.shape if isinstance(size, int))

    def shaped(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Gives the numbers of one row its shape; those of a row with a length of its own become a cell."""
        if self.free is None:
            return numbers.reshape(self.step_shape)
        return cell(numbers.reshape(-1, *self.step_shape))

    def check_column(self, column: NDArray[Any]) -> None:
        """Checks a column of shape ``(rows, *shape)``, or a ragged one.

        Raises:
            BundleError: If its shape or dtype does not fit.
        """
        if self.free is None:
            if column.shape[1:] != self.step_shape or column.dtype != np.dtype(self.dtype):
                raise BundleError(
                    f"expected shape (rows, {', '.join(map(str, self.step_shape))}) and {self.dtype}, "
                    f"got {column.shape} and {column.dtype}"
                )
            return
        if not is_ragged(column) or column.ndim != 1:
            raise BundleError(
                f"expected rows of any length, as the field's encode() makes them, got {column.shape} and "
                f"{column.dtype}"
            )
        for place, row in enumerate(column):
            if row.shape[1:] != self.step_shape or row.dtype != np.dtype(self.dtype):
                raise BundleError(
                    f"row {place}: expected {self.dtype} and {self.expected}, got {row.dtype}, {row.shape}"
                )
            if not 1 <= len(row) <= self.free.longest:
                raise BundleError(
                    f"row {place}: it has {len(row)} {self.free.name}, not 1 to {self.free.longest}"
                )

    def require(self) -> None:
        """Makes sure that values can be decoded here.

        Raises:
            BundleError: If what decodes them is not installed.
        """

    def admit(self, array: NDArray[Any]) -> NDArray[Any]:
        """Checks numbers that came as an array of shape ``(rows, *shape)``, and fills in those that are missing.

        Returns:
            Them in the field's dtype; the same array where nothing is to be done.

        Raises:
            ValueError: If one is not a number that the field takes; the sentence says where.
        """
        assert self.limits is not None  # numbers have them  # noqa: S101
        low, high = self.limits
        if array.size and low <= array.min() and array.max() <= high:  # NaN is neither
            return array.astype(self.dtype, copy=False)
        is_missing = np.isnan(array) & self.may_be_nan
        fits = (array >= low) & (array <= high) | is_missing
        if not fits.all():
            first = tuple(np.argwhere(~fits)[0].tolist())
            raise ValueError(f"holds {array[first]} at {list(first)}; it must lie between {low:g} and {high:g}")
        filled = array if self.fill is None else np.where(is_missing, self.fill, array)
        return filled.astype(self.dtype, copy=False)

    def decode_file(self, data: bytes, budget: PixelBudget | None = None) -> NDArray[Any]:
        """Turns a file of one of ``media_types`` into an array of ``shape`` and ``dtype``.

        Args:
            data: The bytes of the file.
            budget: What it may take from; without one, it has a limit of its own alone.

        Raises:
            ValueError: If it is no such file, or too large; the sentence says why.
        """
        raise NotImplementedError

    def is_slow_file(self, data: bytes) -> bool:
        """Whether ``decode_file`` takes long enough to be moved off the event loop."""
        return True

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer, to be written as JSON: what a caller could have sent.

        Args:
            sent: The JSON value that came, or ``None`` where numbers came in another form.
            array: What it was decoded to, or the numbers as they came.

        Returns:
            ``UNSET`` where the value is missing: a null would say that it is not kept.
        """
        if sent is None:
            return array.tolist()
        return UNSET if bytes(sent) == b"null" else sent

    def read_cell(self, cell: str) -> Any:
        """Reads a CSV cell. What should be JSON and is not goes to the service, which says what is wrong."""
        try:
            return msgspec.json.decode(cell)
        except NO_JSON:
            return cell

    def picture(self, array: NDArray[Any]) -> NDArray[np.uint8] | None:
        """Returns an array as an image, ``(height, width)`` or ``(height, width, 3)``, if it is one."""
        return None

    def sound(self, array: NDArray[Any]) -> tuple[NDArray[Any], int] | None:
        """Returns an array as samples and how many there are a second, if it is a sound."""
        return None

    def in_words(self, array: NDArray[Any]) -> str:
        """Returns an array of one row as a person would read it, shortened."""
        return np.array2string(array, threshold=8, edgeitems=3, precision=6, separator=", ").replace("\n", "")

    def features(self, column: NDArray[Any]) -> Features:
        """Returns what is looked at of rows to see whether they are like others.

        Args:
            column: Shape ``(rows, *shape)``, or a ragged one.

        Returns:
            By name, which is empty for the value itself; always the same names.
        """
        if self.free is None:
            return of_rows(column)
        starts = np.cumsum([0, *(row.size for row in column)])[:-1]
        long = number(lengths(column), self.free.name)
        numbers = flat(column).ravel() if len(column) else np.zeros(0)
        return {"length": long, **spread(numbers, starts)}

    def take_apart(self, row: NDArray[Any], background: NDArray[Any]) -> Apart:
        """Takes the value of one row apart into what an explanation can say something of: here it is one part.

        Args:
            row: The array of the row, as ``decode`` makes it.
            background: A column of other rows.
        """
        return one_feature(row, self.in_words(row))

    def encode(self, values: Sequence[Any]) -> NDArray[Any]:
        """Turns values as a caller would send them into a batch, shape ``(rows, *shape)``: for training code.

        Raises:
            ValueError: If a value does not fit.
        """
        return np.stack([self.decode(msgspec.convert(value, self.wire_type)) for value in values])


def from_base64(text: str) -> bytes:
    """Returns the file that a string of JSON stands for.

    Raises:
        ValueError: If it is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the string is not base64; send the file's bytes in base64, nothing else") from None


def nested(element: Any, shape: Iterable[int]) -> Any:
    """Returns the type of nested lists of ``element`` with exactly this shape."""
    wire = element
    for size in reversed(tuple(shape)):
        wire = Annotated[list[wire], Meta(min_length=size, max_length=size)]  # type: ignore[valid-type]
    return wire
