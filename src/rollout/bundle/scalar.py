"""What the fields with one value a row have in common: the value may be missing, where they say so."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from rollout.bundle.wire import WireField


class Scalar(WireField, frozen=True, kw_only=True, dict=True):
    """One value a row, or none where it may be missing: left out of ``inputs``, or ``null``, which mean the same.

    Both attributes are written to the manifest only where they are set, so that bundles keep their digest.

    Attributes:
        optional: Whether the value may be missing. Without a default, the module gets what the kind of field has
            for that.
        default: What counts where the value is missing, as a caller would send it; then it may be.
    """

    optional: bool | UnsetType = UNSET
    default: Any = UNSET

    def __post_init__(self) -> None:
        try:
            self.missing  # noqa: B018  a default that does not fit is refused here
        except ValueError as error:
            raise ValueError(
                f"the default {self.default!r} is nothing that a caller could send: {error}"
            ) from None

    @property
    def value_type(self) -> Any:
        """The type on the wire of a value that is there."""
        raise NotImplementedError

    @property
    def expected_value(self) -> str:
        """What would be right of a value that is there, in words."""
        raise NotImplementedError

    @property
    def nothing(self) -> NDArray[Any]:
        """What the module gets where a value is missing that has no default."""
        raise NotImplementedError

    def decode_value(self, value: Any) -> NDArray[Any]:
        """Turns a value that passed ``value_type`` into an array of ``shape`` and ``dtype``.

        Raises:
            ValueError: If the value does not fit after all.
        """
        raise NotImplementedError

    @cached_property
    def missing(self) -> NDArray[Any] | None:
        """What the module gets for a row without a value; ``None`` where every row must have one."""
        if self.default is UNSET and self.optional is not True:
            return None
        has_default = self.default is not UNSET
        array = self.decode_value(msgspec.convert(self.default, self.value_type)) if has_default else self.nothing
        array.flags.writeable = False  # all rows share it
        return array

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        return self.value_type if self.missing is None else self.value_type | None

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        if self.default is not UNSET:
            return f"{self.expected_value}; null or nothing counts as {self.default}"
        return (
            self.expected_value if self.missing is None else f"{self.expected_value}; null or nothing if missing"
        )

    def declaration(self, name: str) -> tuple[Any, ...]:
        """Returns its type, and what counts where it is left out, if it may be."""
        if self.missing is None:
            return super().declaration(name)
        return self.wire_type, None if self.default is UNSET else self.default

    def decode(self, value: Any) -> NDArray[Any]:
        """Turns a value that passed ``wire_type`` into an array of ``shape`` and ``dtype``.

        Raises:
            ValueError: If it does not fit after all, or is missing and must not be.
        """
        if value is None:
            if self.missing is None:
                raise ValueError(f"there is no value; it must be {self.expected}")
            return self.missing
        return self.decode_value(value)

    def read_cell(self, cell: str) -> Any:
        """Reads a cell of a CSV file; an empty one is a value that is missing."""
        return super().read_cell(cell) if cell else None

    def encode(self, values: Iterable[Any]) -> NDArray[Any]:
        """Turns values as a caller would send them into a batch, shape ``(rows, *shape)``: for training code.

        Args:
            values: A sequence, an array or a column of pandas; ``None``, NaN, NaT and NA are missing values.

        Raises:
            ValueError: If a value does not fit, or is missing and must not be.
        """
        arrays = [self.decode(value) for value in self.check(values)]
        return np.stack(arrays) if arrays else np.zeros((0, *self.step_shape), self.dtype)

    def check(self, values: Iterable[Any]) -> list[Any]:
        """Returns values as ``decode`` takes them, ``None`` where one is missing.

        Raises:
            ValueError: If a value does not pass ``wire_type``; the sentence says which row it is.
        """
        listed = values.tolist() if hasattr(values, "tolist") else values
        sent = [None if is_missing(value) else self.to_wire(value) for value in listed]
        if self.missing is None and None in sent:
            raise ValueError(f"row {sent.index(None)} has no value: give the field a default, or optional=True")
        checked: list[Any] = msgspec.convert(sent, list[self.wire_type])  # type: ignore[name-defined]
        return checked

    def to_wire(self, value: Any) -> Any:
        """Returns a value of training code as a caller would send it."""
        return value.item() if isinstance(value, np.generic) else value


def is_missing(value: Any) -> bool:
    """Whether a value of training code is none: ``None``, NaN, or what pandas has for it, NaT and NA.

    Example:
        >>> [is_missing(value) for value in (None, float("nan"), 0, "")]
        [True, True, False, False]
    """
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124  what NaN and NaT are known by
    except (TypeError, ValueError):  # NA has no truth value, nor has an array
        return type(value).__name__ == "NAType"
