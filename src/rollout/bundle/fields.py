"""The fields of an input schema: each decodes its wire form to an array, and does no arithmetic on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from rollout.bundle.apart import Apart, numbers, sound, steps
from rollout.bundle.audio import SAMPLE_RATES, Audio
from rollout.bundle.columns import LEAST_WIDTH, LENGTHS
from rollout.bundle.image import Image
from rollout.bundle.numbers import Number, Time, float_limits, in_words
from rollout.bundle.table import Table
from rollout.bundle.texts import Category, Text
from rollout.bundle.wire import LARGEST_ROW, Free, WireField, nested


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
        nan: Whether numbers may be missing, ``null`` in the lists: the module gets NaN in their place. Only
            ``float32`` has one.

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
    nan: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        self._check_shape()
        if self.nan is True and self.dtype != "float32":
            raise ValueError(
                f"nan=True needs float32: {self.dtype} has no NaN to stand for a number that is missing"
            )
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
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest number taken."""
        if self.dtype == "float32":
            return float_limits(self.minimum, self.maximum)
        ends = np.iinfo(self.dtype)
        low = ends.min if self.minimum is None else max(math.ceil(self.minimum), ends.min)
        high = ends.max if self.maximum is None else min(math.floor(self.maximum), ends.max)
        return low, high

    @property
    def fill(self) -> NDArray[Any] | None:
        """What the module gets where a number is NaN; ``None`` where none may be."""
        return np.array(np.nan, np.float32) if self.nan is True else None

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against: element type, range and shape."""
        if self.dtype == "float32":
            number = Annotated[float, Meta(ge=self.minimum, le=self.maximum)]
            step: Any = nested(number | None if self.nan is True else number, self.step_shape)
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
        missing = "; null if missing" if self.nan is True else ""
        return f"{shape}{kind}{in_words(self.minimum, self.maximum)}{missing}"

    def decode(self, value: Any) -> NDArray[Any]:
        """Turns a value that passed ``wire_type`` into an array of ``shape`` and ``dtype``, or a cell of one.

        Raises:
            ValueError: If a number does not fit a finite ``float32``.
        """
        array = self._float32(value) if self.dtype == "float32" else np.array(value, self.dtype)
        return self.shaped(array)

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer, ``None`` where a number is missing."""
        if sent is None and self.nan is True:
            return np.where(np.isnan(array), None, array).tolist()  # type: ignore[call-overload]
        return super().keep(sent, array)

    def sound(self, array: NDArray[Any]) -> tuple[NDArray[Any], int] | None:
        """Returns samples and their rate, where there is one."""
        return None if self.sample_rate is UNSET else (array, self.sample_rate)

    def take_apart(self, row: NDArray[Any], background: NDArray[Any]) -> Apart:
        """Takes sound apart into slices of time, rows of a free length into steps, and others into numbers."""
        if self.sample_rate is not UNSET:
            return sound(row, self.sample_rate)
        return numbers(row) if self.free is None else steps(row, background)

    def _float32(self, value: Any) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            array = np.array(value, np.float32)
        fits = ~np.isinf(array) if self.nan is True else np.isfinite(array)
        if not fits.all():
            raise ValueError("every number must fit a finite float32")
        return array


Field = Tensor | Image | Audio | Number | Text | Category | Time | Table


def with_lengths(fields: Mapping[str, Field]) -> dict[str, Field]:
    """Returns the arguments of a module: the fields, each with a free dimension followed by its lengths.

    Example:
        >>> [*with_lengths({"x": Tensor(shape=("steps",), longest=9), "y": Number()})]
        ['x', 'x_lengths', 'y']
    """
    given: dict[str, Field] = {}
    for name, field in fields.items():
        given[name] = field
        if field.free:
            given[f"{name}{LENGTHS}"] = Tensor(shape=(), dtype="int64", minimum=1, maximum=field.free.longest)
    return given
