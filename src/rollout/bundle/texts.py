"""Fields of one string a row: any text, and one of several."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from rollout.bundle.apart import Apart, words
from rollout.bundle.scalar import Scalar
from rollout.judge.features import Feature, Features, number

# Of a text that is none of the values of a category, characters.
LONGEST_OTHER = 512
# Of UTF-8 (RFC 3629, section 3): bytes that go on with a character.
CONTINUES, CONTINUATION = 0b1100_0000, 0b1000_0000
SPACE = 0x20
# Values of a category that a sentence names.
NAMED = 20


class Text(Scalar, frozen=True, kw_only=True, tag="text"):
    """A string; the module gets its UTF-8 bytes, ``uint8`` of shape ``(rows, max_bytes)``, padded with zeros.

    A missing text without a default is all zeros, which the module cannot tell from an empty one: where it must,
    give a default that nobody would send.

    Attributes:
        max_bytes: Longest text taken, in bytes of UTF-8.

    Example:
        >>> Text(max_bytes=4).encode(["so", "é"])
        array([[115, 111,   0,   0],
               [195, 169,   0,   0]], dtype=uint8)
    """

    is_text: ClassVar[bool] = True

    max_bytes: int = 512
    default: str | UnsetType = UNSET

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, without the batch dimension."""
        return (self.max_bytes,)

    @property
    def dtype(self) -> Literal["uint8"]:
        """The dtype of the array that the model takes."""
        return "uint8"

    @property
    def nothing(self) -> NDArray[np.uint8]:
        """Zeros."""
        return _padded(b"", self.max_bytes)

    @property
    def value_type(self) -> Any:
        """The type on the wire of a value that is there."""
        return Annotated[str, Meta(max_length=self.max_bytes)]

    @property
    def expected_value(self) -> str:
        """What would be right of a value that is there, in words."""
        return f"a text of at most {self.max_bytes} bytes in UTF-8"

    def in_words(self, array: NDArray[Any]) -> str:
        """Returns the padded bytes of one row as the text that they are."""
        return _shown(array)

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer; of padded bytes the text, ``UNSET`` of a missing one."""
        return super().keep(sent, array) if sent is not None else _kept(array, self.missing)

    def decode_value(self, value: str) -> NDArray[np.uint8]:
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

    def features(self, column: NDArray[Any]) -> Features:
        """Returns length and words, and the shares of letters, digits and characters beyond ASCII.

        A text that is missing cannot be told from an empty one, where it may be missing.
        """
        begins = (column != 0) & (column & CONTINUES != CONTINUATION)
        count = begins.sum(1).astype(np.float64)
        if self.missing is not None:
            count[count == 0] = np.nan
        some = np.where(count > 0, count, np.nan)
        lower = column | 0x20
        is_space = np.pad(column <= SPACE, ((0, 0), (1, 0)), constant_values=True)
        words = (is_space[:, :-1] & ~is_space[:, 1:]).sum(1)
        shares = {
            "letters": (lower >= ord("a")) & (lower <= ord("z")) & (column < 0x80),
            "digits": (column >= ord("0")) & (column <= ord("9")),
            "beyond_ascii": begins & (column >= 0x80),
        }
        return {
            "characters": number(count),
            "words": number(np.where(np.isnan(count), np.nan, words)),
            **{name: number(is_one.sum(1) / some) for name, is_one in shares.items()},
        }

    def take_apart(self, row: NDArray[Any], background: NDArray[Any]) -> Apart:
        """Takes the text apart into words."""
        return words(row)

    def read_cell(self, cell: str) -> Any:
        """Reads a cell of a CSV file; an empty one is an empty text, unless the text may be missing."""
        return cell if cell or self.missing is None else None


class Category(Scalar, frozen=True, kw_only=True, tag="category"):
    """One of several strings; the module gets its UTF-8 bytes, ``uint8`` padded with zeros to the longest.

    A missing one without a default is all zeros, which no value is.

    Attributes:
        values: What the module knows.
        other: The one of the values that every other text counts as, of up to 512 characters; without it, a text
            that is none of the values is refused.

    Example:
        >>> Category(values=("EWR", "JFK", "all"), other="all").encode(["JFK", "LaGuardia"])
        array([[ 74,  70,  75],
               [ 97, 108, 108]], dtype=uint8)
    """

    is_text: ClassVar[bool] = True

    values: tuple[str, ...]
    other: str | UnsetType = UNSET
    default: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        named = all(value and "\0" not in value for value in self.values)
        if not self.values or not named or len(set(self.values)) != len(self.values):
            raise ValueError("the values of a category must be different texts, not empty and without NUL")
        if self.other is not UNSET and self.other not in self.values:
            raise ValueError(f"other={self.other!r} must be one of the values: the module was trained with it")
        super().__post_init__()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, without the batch dimension."""
        return (max(len(value.encode()) for value in self.values),)

    @property
    def dtype(self) -> Literal["uint8"]:
        """The dtype of the array that the model takes."""
        return "uint8"

    @property
    def nothing(self) -> NDArray[np.uint8]:
        """Zeros."""
        return _padded(b"", self.shape[0])

    @property
    def value_type(self) -> Any:
        """The type on the wire of a value that is there."""
        if self.other is UNSET:
            return Literal[self.values]
        meta = Meta(max_length=LONGEST_OTHER, description=self.expected_value, examples=list(self.values))
        return Annotated[str, meta]

    @property
    def expected_value(self) -> str:
        """What would be right of a value that is there, in words."""
        further = len(self.values) - NAMED
        values = f"one of {', '.join(self.values[:NAMED])}" + (f" and {further:,} more" if further > 0 else "")
        if self.other is UNSET:
            return values
        return f"{values}; another text of at most {LONGEST_OTHER} characters counts as {self.other}"

    def in_words(self, array: NDArray[Any]) -> str:
        """Returns the padded bytes of one row as the text that they are."""
        return _shown(array)

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer; of padded bytes the text, ``UNSET`` of a missing one."""
        return super().keep(sent, array) if sent is not None else _kept(array, self.missing)

    def decode_value(self, value: str) -> NDArray[np.uint8]:
        """Turns one of the values into its padded bytes, and every other text into those of ``other``."""
        known = value if self.other is UNSET or value in self._codes else self.other
        return _padded(known.encode(), self.shape[0])

    def features(self, column: NDArray[Any]) -> Features:
        """Returns which value it is."""
        width = self.shape[0]
        sent = np.ascontiguousarray(column).view(f"S{width}").ravel()
        places = np.minimum(np.searchsorted(self._in_order[0], sent), len(self.values) - 1)
        codes = np.where(self._in_order[0][places] == sent, self._in_order[1][places].astype(np.float64), np.inf)
        return {"": Feature(np.where(sent == b"", np.nan, codes), self.values)}

    @cached_property
    def _in_order(self) -> tuple[NDArray[np.bytes_], NDArray[np.intp]]:
        """The values as bytes in their order, and the index of each."""
        known = np.array([value.encode() for value in self.values], f"S{self.shape[0]}")
        order = np.argsort(known)
        return known[order], order

    def features_of_codes(self, codes: NDArray[np.float32]) -> Features:
        """Returns which value it is, of numbers that stand for values in a ``Table``."""
        return {"": Feature(codes.astype(np.float64), self.values)}

    @property
    def code_limits(self) -> tuple[float, float]:
        """The smallest and the largest number that stands for a value in a ``Table``."""
        return 0.0, float(len(self.values) - 1)

    def code(self, value: str | None) -> float:
        """Returns what stands for a value in a ``Table``: its index in ``values``, or NaN if there is none."""
        if value is None:
            return float("nan") if self.default is UNSET else self._codes[self.default]
        return self._codes.get(value, self._other_code)

    def codes(self, values: Iterable[Any]) -> NDArray[np.float32]:
        """Returns what stands for values in a ``Table``."""
        return np.array([self.code(value) for value in self.check(values)], np.float32)

    def value_of(self, code: float) -> str:
        """Returns the value that a number of a ``Table`` stands for."""
        return self.values[int(code)]

    def read_cell(self, cell: str) -> Any:
        """Reads a cell of a CSV file; an empty one is a value that is missing."""
        return cell or None

    @cached_property
    def _codes(self) -> dict[str, float]:
        return {value: float(index) for index, value in enumerate(self.values)}

    @cached_property
    def _other_code(self) -> float:
        return 0.0 if self.other is UNSET else self._codes[self.other]


def _kept(array: NDArray[Any], missing: NDArray[Any] | None) -> Any:
    """Returns padded bytes as the text that they are, unless they are what a missing text has."""
    if missing is not None and np.array_equal(array, missing):
        return UNSET
    return array.tobytes().rstrip(b"\0").decode(errors="replace")


def _shown(array: NDArray[Any]) -> str:
    return repr(array.astype(np.uint8).tobytes().rstrip(b"\0").decode(errors="backslashreplace"))


def _padded(data: bytes, width: int) -> NDArray[np.uint8]:
    """Returns bytes as an array of shape ``(width,)``, with zeros behind them."""
    return np.frombuffer(data.ljust(width, b"\0"), np.uint8)
