"""Fields of one number a row: a number as it is, and a moment in seconds."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from rollout.bundle.scalar import Scalar
from rollout.judge.features import DAY_S, WEEK_S, Feature, Features

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LARGEST = float(np.finfo(np.float32).max)


class Number(Scalar, frozen=True, kw_only=True, tag="number"):
    """One number; the module gets ``float32`` of shape ``(rows,)``, NaN where it is missing and has no default.

    Attributes:
        minimum: Smallest value allowed, if any.
        maximum: Largest value allowed, if any.

    Example:
        >>> Number(minimum=0, optional=True).encode([0.5, None])
        array([0.5, nan], dtype=float32)
    """

    minimum: float | None = None
    maximum: float | None = None
    default: float | UnsetType = UNSET

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
        return float_limits(self.minimum, self.maximum)

    @property
    def fill(self) -> NDArray[Any] | None:
        """What the module gets where a number is NaN; ``None`` where none may be."""
        return self.missing

    @property
    def nothing(self) -> NDArray[np.float32]:
        """NaN."""
        return np.array(np.nan, np.float32)

    @property
    def value_type(self) -> Any:
        """The type on the wire of a value that is there."""
        return Annotated[float, Meta(ge=self.minimum, le=self.maximum)]

    @property
    def expected_value(self) -> str:
        """What would be right of a value that is there, in words."""
        return f"a number{in_words(self.minimum, self.maximum)}"

    def decode_value(self, value: float) -> NDArray[np.float32]:
        """Turns a number into an array of shape ``()``.

        Raises:
            ValueError: If it does not fit a finite ``float32``.
        """
        if not -LARGEST <= value <= LARGEST:
            raise ValueError("every number must fit a finite float32")
        return np.array(value, np.float32)

    def to_wire(self, value: Any) -> Any:
        """Returns a number; of a truth value, 0 or 1."""
        value = super().to_wire(value)
        return int(value) if isinstance(value, bool) else value

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer; ``UNSET`` where the number is missing."""
        return UNSET if sent is None and np.isnan(array) else super().keep(sent, array)

    def encode(self, values: Iterable[Any]) -> NDArray[np.float32]:
        """Turns numbers into a batch, shape ``(rows,)``; see ``Scalar.encode``."""
        with np.errstate(over="ignore"):
            return self.admit(np.array(self.check(values), np.float32))

    @property
    def code_limits(self) -> tuple[float, float]:
        """The smallest and the largest number that stands for a value in a ``Table``."""
        return self.limits

    def code(self, value: float | None) -> float:
        """Returns what stands for a value in a ``Table``: the number, or NaN or the default if there is none."""
        if value is None:
            assert self.missing is not None  # or its type would not let it pass  # noqa: S101
            return float(self.missing)
        return value

    def codes(self, values: Iterable[Any]) -> NDArray[np.float32]:
        """Returns what stands for values in a ``Table``."""
        return self.encode(values)

    def features_of_codes(self, codes: NDArray[np.float32]) -> Features:
        """Returns the numbers, of those that stand for values in a ``Table``."""
        return self.features(codes)

    def value_of(self, code: float) -> float:
        """Returns the value that a number of a ``Table`` stands for."""
        return code


class Time(Scalar, frozen=True, kw_only=True, tag="time"):
    """A moment in ISO 8601; the module gets whole seconds since 1970 in UTC, ``int64`` of shape ``(rows,)``.

    A missing one without a default is ``Time.MISSING``, the smallest ``int64``.

    Example:
        >>> Time().encode(["1970-01-02T01:00:00+01:00"])
        array([86400])
    """

    is_text: ClassVar[bool] = True

    MISSING: ClassVar[int] = -(2**63)

    default: str | UnsetType = UNSET

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, without the batch dimension."""
        return ()

    @property
    def dtype(self) -> Literal["int64"]:
        """The dtype of the array that the model takes."""
        return "int64"

    @property
    def nothing(self) -> NDArray[np.int64]:
        """``MISSING``."""
        return np.array(self.MISSING, np.int64)

    @property
    def value_type(self) -> Any:
        """The type on the wire of a value that is there."""
        return Annotated[datetime, Meta(tz=True)]

    @property
    def expected_value(self) -> str:
        """What would be right of a value that is there, in words."""
        return "a time in ISO 8601 with its zone, such as 2026-11-05T10:00:00Z"

    def decode_value(self, value: datetime) -> NDArray[np.int64]:
        """Turns an aware ``datetime`` into seconds since 1970, rounded down."""
        return np.array((value - EPOCH) // timedelta(seconds=1), np.int64)

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer: of seconds the moment, ``UNSET`` where it is missing."""
        if sent is not None:
            return super().keep(sent, array)
        seconds = int(array)
        return UNSET if seconds == self.MISSING else (EPOCH + timedelta(seconds=seconds)).isoformat()

    def in_words(self, array: NDArray[Any]) -> str:
        """Returns the seconds of one row as the moment that they are."""
        seconds = int(array)
        return "missing" if seconds == self.MISSING else (EPOCH + timedelta(seconds=seconds)).isoformat()

    def read_cell(self, cell: str) -> Any:
        """Reads a cell of a CSV file; an empty one is a value that is missing."""
        return cell or None

    def features(self, column: NDArray[Any]) -> Features:
        """Returns the hour of the day and the day of the week, in UTC: later rows have later times anyway."""
        is_missing = column == self.MISSING
        hours = np.where(is_missing, np.nan, column % DAY_S // 3600)
        days = np.where(is_missing, np.nan, (column // DAY_S + EPOCH.weekday()) % len(WEEKDAYS))
        return {
            "hour": Feature(hours, unit="h", period_s=DAY_S),
            "weekday": Feature(days, WEEKDAYS, period_s=WEEK_S),
        }

    def to_wire(self, value: Any) -> Any:
        """Returns a moment in ISO 8601; of pandas as well."""
        return value.isoformat() if isinstance(value, datetime) else super().to_wire(value)


def float_limits(minimum: float | None, maximum: float | None) -> tuple[float, float]:
    """Returns the smallest and the largest ``float32`` within limits that need not be there."""
    return -LARGEST if minimum is None else max(minimum, -LARGEST), LARGEST if maximum is None else min(
        maximum, LARGEST
    )


def in_words(minimum: float | None, maximum: float | None) -> str:
    """Says what limits there are.

    Example:
        >>> in_words(0, None)
        ', at least 0'
    """
    least = "" if minimum is None else f", at least {minimum:g}"
    most = "" if maximum is None else f", at most {maximum:g}"
    return least + most
