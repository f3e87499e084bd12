"""The fields of an input schema: each decodes its wire form to an array, and does no arithmetic on it."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from rollout.bundle.audio import SAMPLE_RATES, Audio
from rollout.bundle.columns import LEAST_WIDTH
from rollout.bundle.image import Image
from rollout.bundle.wire import LARGEST_ROW, Free, WireField, nested

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Tensor(WireField, frozen=True, kw_only=True, tag="tensor"):
    """Nested lists of numbers.

    The first dimension may be free: it has a name in place of a size, and each row its own length, from 1 to
    ``longest``. The module gets the rows of a batch padded with zeros to the longest of them, to two steps at
    least, and as its next argument their lengths, ``int64`` of shape ``(rows,)``. Fields that give their free
    dimension the same name must have the same length in each row; each is followed by its lengths all the same.

    Attributes:
        shape: Shape of one row, without the batch dimension.
        longest: Largest length of a row, where its first dimension is free. Left out like ``sample_rate``.
        dtype: dtype of the array that the model takes.
        minimum: Smallest value allowed, if any.
        maximum: Largest value allowed, if any.
        sample_rate: Samples a second, where the numbers are sound: reviewers hear it. Left out, it is not written
            to the manifest, so that bundles keep their digest.

    Example:
        >>> Tensor(shape=(2,), dtype="float32", minimum=0).decode([0.5, 3])
        array([0.5, 3. ], dtype=float32)
    """

    shape: tuple[int | str, ...]
    longest: int | UnsetType = UNSET
    dtype: Literal["float32", "int64", "uint8"] = "float32"
    minimum: float | None = None
    maximum: float | None = None
    sample_rate: int | UnsetType = UNSET

    def __post_init__(self) -> None:
        self._check_shape()
        if self.sample_rate is UNSET:
            return
        low, high = SAMPLE_RATES
        if len(self.shape) != 1 or not low <= self.sample_rate <= high:
            raise ValueError(
                f"a sample rate of {self.sample_rate} with shape {self.shape}: sound has one dimension and a "
                f"rate from {low:,} to {high:,} Hz, which is what browsers play"
            )

    def _check_shape(self) -> None:
        names = [size for size in self.shape if isinstance(size, str)]
        if not names and self.longest is UNSET:
            return
        first = next(iter(self.shape), 0)
        if len(names) != 1 or first != names[0] or not names[0].isidentifier():
            raise ValueError(
                f"shape {self.shape}: only the first dimension can be free, which is named by an identifier, and "
                "only then has the field a longest"
            )
        row_bytes = math.prod(self.step_shape) * np.dtype(self.dtype).itemsize * (self.longest or 0)
        if self.longest is UNSET or self.longest < LEAST_WIDTH or not 0 < row_bytes <= LARGEST_ROW:
            raise ValueError(
                f"shape {self.shape} needs longest, of {LEAST_WIDTH} steps or more and {LARGEST_ROW:,} bytes or "
                "less: the memory of a batch needs a bound"
            )

    @property
    def free(self) -> Free | None:
        """The dimension that each row has its own size in, if any."""
        name = next(iter(self.shape), 0)
        return Free(name, self.longest) if isinstance(name, str) and self.longest is not UNSET else None

    @property
    def step_shape(self) -> tuple[int, ...]:
        """Shape of one row without its free dimension."""
        return tuple(size for size in self.shape if isinstance(size, int))

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest number taken."""
        if self.dtype == "float32":
            return _limits(self.minimum, self.maximum)
        ends = np.iinfo(self.dtype)
        low = ends.min if self.minimum is None else max(math.ceil(self.minimum), ends.min)
        high = ends.max if self.maximum is None else min(math.floor(self.maximum), ends.max)
        return low, high

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against: element type, range and shape."""
        if self.dtype == "float32":
            step: Any = nested(Annotated[float, Meta(ge=self.minimum, le=self.maximum)], self.step_shape)
        else:
            low, high = self.limits
            step = nested(Annotated[int, Meta(ge=low, le=high)], self.step_shape)
        if self.free is None:
            return step
        return Annotated[list[step], Meta(min_length=1, max_length=self.free.longest)]

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        sizes = list(self.shape)
        if self.free is not None:
            sizes[0] = f"(1 to {self.free.longest:,})"
        shape = "×".join(map(str, sizes)) + " nested lists of " if sizes else "one of "
        kind = "numbers" if self.dtype == "float32" else f"whole numbers that fit {self.dtype}"
        return f"{shape}{kind}{_in_words(self.minimum, self.maximum)}"

    def decode(self, value: Any) -> NDArray[Any]:
        """Turns a value that passed ``wire_type`` into an array of ``shape`` and ``dtype``, or a cell of one.

        Raises:
            ValueError: If a number does not fit a finite ``float32``.
        """
        array = _float32(value) if self.dtype == "float32" else np.array(value, self.dtype)
        return self.shaped(array)


class Number(WireField, frozen=True, kw_only=True, tag="number"):
    """One number; the module gets ``float32`` of shape ``(rows,)``.

    Attributes:
        minimum: Smallest value allowed, if any.
        maximum: Largest value allowed, if any.

    Example:
        >>> Number(minimum=0).encode([0.5, 3])
        array([0.5, 3. ], dtype=float32)
    """

    minimum: float | None = None
    maximum: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, without the batch dimension."""
        return ()

    @property
    def dtype(self) -> Literal["float32"]:
        """The dtype of the array that the model takes."""
        return "float32"

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest number taken."""
        return _limits(self.minimum, self.maximum)

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        return Annotated[float, Meta(ge=self.minimum, le=self.maximum)]

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        return f"a number{_in_words(self.minimum, self.maximum)}"

    def decode(self, value: Any) -> NDArray[np.float32]:
        """Turns a number into an array of shape ``()``.

        Raises:
            ValueError: If it does not fit a finite ``float32``.
        """
        return _float32(value)


class Text(WireField, frozen=True, kw_only=True, tag="text"):
    """A string; the module gets its UTF-8 bytes, ``uint8`` of shape ``(rows, max_bytes)``, padded with zeros.

    Attributes:
        max_bytes: Longest text taken, in bytes of UTF-8.

    Example:
        >>> Text(max_bytes=4).encode(["so", "é"])
        array([[115, 111,   0,   0],
               [195, 169,   0,   0]], dtype=uint8)
    """

    max_bytes: int = 512

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, without the batch dimension."""
        return (self.max_bytes,)

    @property
    def dtype(self) -> Literal["uint8"]:
        """The dtype of the array that the model takes."""
        return "uint8"

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        return Annotated[str, Meta(max_length=self.max_bytes)]

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        return f"a text of at most {self.max_bytes} bytes in UTF-8"

    def decode(self, value: Any) -> NDArray[np.uint8]:
        """Turns a string into its padded bytes.

        Raises:
            ValueError: If it is too long or holds a NUL character.
        """
        data = value.encode()
        if len(data) > self.max_bytes:
            raise ValueError(f"the text has {len(data)} bytes in UTF-8; it must be {self.expected}")
        if 0 in data:
            raise ValueError("the text holds a NUL character; leave it out")
        return _padded(data, self.max_bytes)


class Category(WireField, frozen=True, kw_only=True, tag="category"):
    """One of several strings; the module gets its UTF-8 bytes, ``uint8`` padded with zeros to the longest.

    Attributes:
        values: What may be sent.

    Example:
        >>> Category(values=("EWR", "JFK")).encode(["JFK"])
        array([[74, 70, 75]], dtype=uint8)
    """

    values: tuple[str, ...]

    def __post_init__(self) -> None:
        named = all(value and "\0" not in value for value in self.values)
        if not self.values or not named or len(set(self.values)) != len(self.values):
            raise ValueError("the values of a category must be different texts, not empty and without NUL")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, without the batch dimension."""
        return (max(len(value.encode()) for value in self.values),)

    @property
    def dtype(self) -> Literal["uint8"]:
        """The dtype of the array that the model takes."""
        return "uint8"

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        return Literal[self.values]

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        return f"one of {', '.join(self.values)}"

    def decode(self, value: Any) -> NDArray[np.uint8]:
        """Turns one of the values into its padded bytes."""
        return _padded(value.encode(), self.shape[0])


class Time(WireField, frozen=True, kw_only=True, tag="time"):
    """A moment in ISO 8601; the module gets whole seconds since 1970 in UTC, ``int64`` of shape ``(rows,)``.

    Example:
        >>> Time().encode(["1970-01-02T01:00:00+01:00"])
        array([86400])
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, without the batch dimension."""
        return ()

    @property
    def dtype(self) -> Literal["int64"]:
        """The dtype of the array that the model takes."""
        return "int64"

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        return Annotated[datetime, Meta(tz=True)]

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        return "a time in ISO 8601 with its zone, such as 2026-11-05T10:00:00Z"

    def decode(self, value: Any) -> NDArray[np.int64]:
        """Turns an aware ``datetime`` into seconds since 1970, rounded down."""
        return np.array((value - EPOCH) // timedelta(seconds=1), np.int64)


Field = Tensor | Image | Audio | Number | Text | Category | Time


def _float32(value: Any) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        array = np.array(value, np.float32)
    if not np.isfinite(array).all():
        raise ValueError("every number must fit a finite float32")
    return array


def _limits(minimum: float | None, maximum: float | None) -> tuple[float, float]:
    ends = np.finfo(np.float32)
    low = float(ends.min) if minimum is None else max(minimum, float(ends.min))
    return low, float(ends.max) if maximum is None else min(maximum, float(ends.max))


def _in_words(minimum: float | None, maximum: float | None) -> str:
    least = "" if minimum is None else f", at least {minimum:g}"
    most = "" if maximum is None else f", at most {maximum:g}"
    return least + most


def _padded(data: bytes, width: int) -> NDArray[np.uint8]:
    return np.frombuffer(data.ljust(width, b"\0"), np.uint8)
