"""The fields of an input schema: each decodes its wire form to an array, and does no arithmetic on it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from rollout.bundle.image import Image
from rollout.bundle.numbers import Number, Time, float_limits, in_words
from rollout.bundle.table import Table
from rollout.bundle.texts import Category, Text
from rollout.bundle.wire import WireField, nested

SAMPLE_RATES = (3_000, 768_000)


class Tensor(WireField, frozen=True, kw_only=True, tag="tensor"):
    """Nested lists of numbers.

    Attributes:
        shape: Shape of one row, without the batch dimension.
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

    shape: tuple[int, ...]
    dtype: Literal["float32", "int64", "uint8"] = "float32"
    minimum: float | None = None
    maximum: float | None = None
    sample_rate: int | UnsetType = UNSET
    nan: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
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
            return nested(number | None if self.nan is True else number, self.shape)
        low, high = self.limits
        return nested(Annotated[int, Meta(ge=low, le=high)], self.shape)

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        shape = "×".join(map(str, self.shape)) + " nested lists of " if self.shape else "one of "
        kind = "numbers" if self.dtype == "float32" else f"whole numbers that fit {self.dtype}"
        missing = "; null if missing" if self.nan is True else ""
        return f"{shape}{kind}{in_words(self.minimum, self.maximum)}{missing}"

    def decode(self, value: Any) -> NDArray[Any]:
        """Turns a value that passed ``wire_type`` into an array of ``shape`` and ``dtype``.

        Raises:
            ValueError: If a number does not fit a finite ``float32``.
        """
        if self.dtype == "float32":
            return self._float32(value).reshape(self.shape)
        return np.array(value, self.dtype).reshape(self.shape)

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer, ``None`` where a number is missing."""
        if sent is None and self.nan is True:
            return np.where(np.isnan(array), None, array).tolist()  # type: ignore[call-overload]
        return super().keep(sent, array)

    def _float32(self, value: Any) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            array = np.array(value, np.float32)
        fits = ~np.isinf(array) if self.nan is True else np.isfinite(array)
        if not fits.all():
            raise ValueError("every number must fit a finite float32")
        return array


Field = Tensor | Image | Number | Text | Category | Time | Table
