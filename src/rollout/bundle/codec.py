"""The codec of a field: from the bytes of its JSON value to an array.

Nested lists of numbers, which most requests are made of, go from bytes to an array without a Python object
for each number. Whatever else a value is, or if it is wrong, a strict and slower parser takes it and says what.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import msgspec
import numpy as np
import simdjson
from numpy.typing import NDArray

from rollout.bundle.audio import Audio
from rollout.bundle.fields import Field, Tensor
from rollout.bundle.image import Image, PixelBudget, is_slow

NUMBER_CHARACTERS = b"0123456789+-.eE \t\r\n"
ELEMENTS: dict[str, tuple[Literal["u", "i", "d"], type[np.generic]]] = {
    "uint8": ("u", np.uint64),
    "int64": ("i", np.int64),
    "float32": ("d", np.float64),
}


class CodecError(ValueError):
    """A value does not fit its field.

    Attributes:
        pointer: JSON pointer to the fault, relative to the field.
        detail: What is wrong, and what would be right.
    """

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


class Codec:
    """Decodes one field.

    Args:
        field: What the value must be.
    """

    def __init__(self, field: Field) -> None:
        self._field = field
        self._strict = msgspec.json.Decoder(field.wire_type)
        self._is_numeric = isinstance(field, Tensor | Image)
        if isinstance(field, Tensor | Image):
            self._parser = simdjson.Parser()
            self._letter, self._element = ELEMENTS[field.dtype]
            # Below this no element can lie: unsigned numbers need no look at the smallest one.
            self._element_low = 0 if self._letter == "u" else -math.inf
            self._skeleton = _skeleton(field.step_shape)
            self._size = math.prod(field.step_shape)
            self._longest = field.free.longest if field.free else 0
            limits: tuple[float, float] = field.limits
            self._low, self._high = limits

    def is_slow(self, raw: bytes) -> bool:
        """Whether decoding takes long enough to be moved off the event loop: most files do."""
        is_file = isinstance(self._field, Image | Audio) and raw.startswith(b'"')
        return is_file and (isinstance(self._field, Audio) or is_slow(raw))

    def decode(self, raw: bytes, budget: PixelBudget | None = None) -> NDArray[Any]:
        """Decodes the JSON value ``raw`` to an array of the field's shape and dtype.

        Args:
            raw: The value.
            budget: What files may take from.

        Raises:
            CodecError: If it does not fit the field.
        """
        numbers = self._parse_numbers(raw)
        if numbers is not None:
            return self._field.shaped(numbers.astype(self._field.dtype))
        try:
            value = self._strict.decode(raw)
        except msgspec.DecodeError as error:
            detail, pointer = split_location(error)
            raise CodecError(pointer, f"{detail}; it must be {self._field.expected}") from None
        except UnicodeDecodeError:
            raise CodecError("", f"the string is not UTF-8; it must be {self._field.expected}") from None
        try:
            return (
                self._field.decode(value, budget)
                if isinstance(self._field, Image | Audio)
                else self._field.decode(value)
            )
        except ValueError as error:
            raise CodecError("", str(error)) from None

    def _parse_numbers(self, raw: bytes) -> NDArray[Any] | None:
        # Without the characters of numbers, lists of the right shape leave just their brackets and commas.
        if not self._is_numeric:
            return None
        steps = self._count_steps(raw.translate(None, NUMBER_CHARACTERS))
        if not steps:
            return None
        try:
            value = self._parser.parse(raw)
            assert isinstance(value, simdjson.Array)  # as its skeleton says  # noqa: S101
            buffer = value.as_buffer(of_type=self._letter)
        except (ValueError, TypeError, RuntimeError):
            return None
        numbers = np.frombuffer(buffer, self._element)
        if numbers.size != self._size * steps or not numbers.size or numbers.max() > self._high:
            return None
        if self._low > self._element_low and numbers.min() < self._low:
            return None
        return numbers

    def _count_steps(self, found: bytes) -> int:
        """Returns how many steps these brackets and commas hold; 1 where none is free, 0 if they do not fit."""
        if not self._longest:
            return int(found == self._skeleton != b"")
        steps = (len(found) - 1) // (len(self._skeleton) + 1)
        fits = 1 <= steps <= self._longest and found == b"[" + b",".join([self._skeleton] * steps) + b"]"
        return steps if fits else 0


def _skeleton(shape: tuple[int, ...]) -> bytes:
    skeleton = b""
    for size in reversed(shape):
        skeleton = b"[" + b",".join([skeleton] * size) + b"]"
    return skeleton


def split_location(error: msgspec.DecodeError) -> tuple[str, str]:
    """Splits an error of ``msgspec`` into its text and a JSON pointer.

    Example:
        >>> split_location(msgspec.ValidationError("Expected `int`, got `str` - at `$.a[3]`"))
        ('expected int, got str', '/a/3')
    """
    text, _, path = str(error).partition(" - at `$")
    text = (text[0].lower() + text[1:]).replace("`", "")
    steps = re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", path.rstrip("`"))
    return text, "".join(f"/{name or index}" for name, index in steps)
