"""The codec of a field: from the bytes of its JSON value to an array.

Nested lists of numbers, which most requests are made of, go from bytes to an array without a Python object
for each number. Whatever else a value is, or if it is wrong, a strict and slower parser takes it and says what.
"""

from __future__ import annotations

import binascii
import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Literal

import msgspec
import numpy as np
import simdjson
from numpy.typing import NDArray

from rollout.bundle.columns import cell
from rollout.bundle.fields import Tensor
from rollout.bundle.image import QUICK_BYTES, Image
from rollout.bundle.image_file import PixelBudget
from rollout.bundle.wire import WireField, from_base64
from rollout.errors import FieldError, step_to

NUMBER_CHARACTERS = b"0123456789+-. \t\r\n"
EXPONENTS = b"eE"
ELEMENTS: dict[str, tuple[Literal["u", "i", "d"], type[np.generic]]] = {
    "uint8": ("u", np.uint64),
    "int64": ("i", np.int64),
    "float32": ("d", np.float64),
}
# As text, numbers that msgspec reads some hundred times as slowly as others: beyond 1e288, or below 1e-291.
SLOW_NUMBERS = re.compile(rb"[0-9][eE][+-]?0*(?:2[5-9][0-9]|[3-9][0-9]{2}|[1-9][0-9]{3,})\s*[],}]")
# Those that simdjson may read as slowly, and msgspec does not: of more than 19 digits, with an exponent.
AS_ZEROS = bytes.maketrans(b"123456789.E", b"0000000000e")
LONG_NUMBER = b"0" * 20 + b"e"
MOST_SLOW_NUMBERS = 1000
# Names that are not known: so many are pointed at.
MOST_UNKNOWN = 100


class CodecError(ValueError):
    """A value does not fit its field.

    Args:
        errors: JSON pointer to each fault, relative to the field, and what is wrong and would be right.
    """

    def __init__(self, *errors: FieldError) -> None:
        super().__init__("; ".join(detail for _, detail in errors))
        self.errors = errors


class Codec:
    """Decodes one field.

    Args:
        field: What the value must be.
    """

    def __init__(self, field: WireField) -> None:
        self._field = field
        self._strict = msgspec.json.Decoder(field.wire_type)
        self._parts = {name: Codec(part) for name, part in field.parts.items()}
        # What counts where there is no value; None where there must be one.
        self.missing = field.missing
        self._has_lists = isinstance(field, Tensor | Image)
        if isinstance(field, Tensor | Image):
            self._parser = simdjson.Parser()
            self._letter, self._element = ELEMENTS[field.dtype]
            # Below this no element can lie: unsigned numbers need no look at the smallest one.
            self._element_low = 0 if self._letter == "u" else -math.inf
            self._shape = field.step_shape
            self._skeleton = _skeleton(self._shape)
            self._size = math.prod(self._shape)
            # Of a free length; each of its steps is one skeleton.
            self._longest = field.free.longest if field.free else 0
            limits: tuple[float, float] = field.limits
            self._low, self._high = limits

    def is_slow(self, raw: bytes) -> bool:
        """Whether decoding takes long enough to be moved off the event loop: most files do."""
        if not (self._field.media_types and raw.startswith(b'"')):
            return False
        if len(raw) > QUICK_BYTES:
            return True
        try:
            return self._field.is_slow_file(binascii.a2b_base64(raw))
        except binascii.Error:
            return True

    def is_slow_file(self, data: bytes) -> bool:
        """Whether decoding a file takes long enough to be moved off the event loop."""
        return self._field.is_slow_file(data)

    def decode_file(self, data: bytes, budget: PixelBudget | None = None) -> NDArray[Any]:
        """Decodes a file to an array of the field's shape and dtype.

        Args:
            data: The bytes of the file.
            budget: What files may take from.

        Raises:
            CodecError: If it does not fit the field.
        """
        try:
            return self._field.decode_file(data, budget)
        except ValueError as error:
            raise _fault(str(error)) from None

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
            array = numbers.astype(self._field.dtype)
            return cell(array.reshape(-1, *self._shape)) if self._longest else array.reshape(self._shape)
        try:
            require_quick(raw)
            value = self._strict.decode(raw)
        except msgspec.DecodeError as error:
            raise CodecError(*self._explain(raw, error)) from None
        except UnicodeDecodeError:
            raise _fault(f"the string is not UTF-8; it must be {self.expected}") from None
        except ValueError as error:
            raise _fault(f"{error}; it must be {self.expected}") from None
        try:
            if self._field.media_types and isinstance(value, str):
                return self._field.decode_file(from_base64(value), budget)
            return self._field.decode(value)
        except ValueError as error:
            raise _fault(str(error)) from None

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        return self._field.expected

    def _explain(self, raw: bytes, error: msgspec.DecodeError) -> list[FieldError]:
        """Says what is wrong with a value; with every part of it that is, where it has parts."""
        if self._parts:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
                if errors := decode_named(self._parts, parts, "a column of this table")[1]:
                    return errors
        detail, pointer = split_location(error)
        return [FieldError(pointer, f"{detail}; it must be {self.expected}")]

    def _parse_numbers(self, raw: bytes) -> NDArray[Any] | None:
        # Without the characters of numbers, lists of the right shape leave just their brackets and commas.
        found = raw.translate(None, NUMBER_CHARACTERS) if self._has_lists else b""
        steps = self._count_steps(found)
        if not steps:
            steps = self._count_steps(found.translate(None, EXPONENTS))
            if not steps or raw.translate(AS_ZEROS).count(LONG_NUMBER) > MOST_SLOW_NUMBERS:
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
        if not self._has_lists:
            return 0
        if not self._longest:
            return int(found == self._skeleton != b"")
        steps = (len(found) - 1) // (len(self._skeleton) + 1)
        fits = 1 <= steps <= self._longest and found == b"[" + b",".join([self._skeleton] * steps) + b"]"
        return steps if fits else 0


def require_quick(raw: bytes) -> None:
    """Refuses JSON of which parsing the numbers would hold up all others for seconds.

    Raises:
        ValueError: If many are very large, or very close to zero.
    """
    if raw.startswith(b'"') or raw.count(b"e") + raw.count(b"E") <= MOST_SLOW_NUMBERS:
        return
    if any(islice(SLOW_NUMBERS.finditer(raw), MOST_SLOW_NUMBERS, None)):
        raise ValueError(
            f"more than {MOST_SLOW_NUMBERS:,} numbers are beyond 1e250, or closer to zero than 1e-250"
        )


def decode_named(
    codecs: Mapping[str, Codec],
    values: Mapping[str, msgspec.Raw | bytes],
    kind: str,
    budget: PixelBudget | None = None,
) -> tuple[dict[str, NDArray[Any]], list[FieldError]]:
    """Decodes the values of an object, each with its own codec.

    Args:
        codecs: What there may be, by name.
        values: The JSON values, or files where a codec takes them.
        kind: What a codec's name is, for those that have none.
        budget: What files may take from.

    Returns:
        The arrays, and every fault with its pointer.
    """
    arrays: dict[str, NDArray[Any]] = {}
    errors: list[FieldError] = []
    known = 0
    for name, codec in codecs.items():
        sent = values.get(name)
        if sent is None:
            if codec.missing is None:
                errors.append(FieldError(step_to(name), f"is required: {codec.expected}"))
            else:
                arrays[name] = codec.missing
            continue
        known += 1
        try:
            if isinstance(sent, msgspec.Raw):
                arrays[name] = codec.decode(bytes(sent), budget)
            else:
                arrays[name] = codec.decode_file(sent, budget)
        except CodecError as error:
            errors += [FieldError(f"{step_to(name)}{pointer}", detail) for pointer, detail in error.errors]
    if known != len(values):
        errors += [
            FieldError(step_to(name), f"is not {kind}; it takes {', '.join(codecs)}")
            for name in islice(values.keys() - codecs.keys(), MOST_UNKNOWN)
        ]
    return arrays, errors


def _fault(detail: str) -> CodecError:
    return CodecError(FieldError("", detail))


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
    return text, "".join(step_to(name or index) for name, index in steps)


# What msgspec calls the types of JSON.
_KINDS = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object"}


def located(pointer: str, detail: str, body: bytes) -> str:
    """Puts names in the place of ``...``, by which ``msgspec`` points at any member of an object.

    Args:
        pointer: As ``split_location`` returns it.
        detail: What is wrong, which says what was found there.
        body: The JSON.

    Returns:
        A pointer to the first value of that type in such a place, or ``pointer`` where there is none.

    Example:
        >>> located("/values/...", "expected float, got null", b'{"values": {"low": 1, "high": null}}')
        '/values/high'
    """
    _, got, kind = detail.partition(", got ")
    if not got or "/..." not in pointer:
        return pointer
    return next(_places(msgspec.json.decode(body), pointer.split("/")[1:], kind, ""), pointer)


def _places(value: object, steps: list[str], kind: str, at: str) -> Iterator[str]:
    if not steps:
        if _KINDS[type(value)] == kind:
            yield at
    elif isinstance(value, dict):
        for name, inner in value.items():
            if steps[0] in ("...", name):
                yield from _places(inner, steps[1:], kind, at + step_to(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if steps[0] in ("...", str(index)):
                yield from _places(inner, steps[1:], kind, f"{at}/{index}")
