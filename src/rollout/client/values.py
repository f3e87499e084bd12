"""What callers have in Python as what the service takes in JSON. Nothing here imports NumPy, pandas or Pillow.

A value that is missing (``None``, NaN, NaT, NA) is ``null``. An array is the numbers of a field as they are, in
the model's shape; a picture, bytes and a path are a file, of any size that the service takes.
"""

from __future__ import annotations

import datetime
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

# What a PNG can hold; a picture of another mode becomes RGB.
PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})
NOT_FINITE = "is infinite, which no model takes: leave it out, or send a number"
NO_ZONE = "has no time zone: give it one, such as value.replace(tzinfo=datetime.timezone.utc)"

NO_NUMBERS = {"M": NO_ZONE, "m": "is a duration: send a number of seconds", "c": "is a complex number"}


def plain(value: Any, pointer: str = "") -> Any:
    """Returns a value as the service takes it, ready for ``msgspec.json.encode``, which writes bytes in base64.

    Args:
        value: ``None``, a truth value (which becomes 0 or 1), a number, a text, a time with its zone, an array of
            NumPy or whatever else has ``tolist``, a picture of Pillow, bytes, a path whose file is read, or
            sequences and mappings of these.
        pointer: JSON pointer to it, for errors.

    Raises:
        ValueError: If a number is infinite, or a time has no zone.
        TypeError: If it is of a type that stands for nothing that the service takes.
        OSError: If a file cannot be read.
    """
    for fits, convert in KINDS:
        if fits(value):
            return convert(value, pointer)
    raise TypeError(f"{pointer or 'the value'} is a {type(value).__name__}, which no input of a model can be")


def cells(column: Any) -> list[Any]:
    """Returns the values of a column, one a row: of an array, a Series of pandas or polars, or any iterable."""
    kind = getattr(getattr(column, "dtype", None), "kind", "O")
    if getattr(column, "ndim", 1) > 1 or kind in NO_NUMBERS:  # ``tolist`` would make numbers of times
        return list(column)
    for method in ("tolist", "to_list", "to_pylist"):  # NumPy and pandas, polars, Arrow
        if hasattr(column, method):
            return list(getattr(column, method)())
    return list(column)


def _is_missing(value: Any) -> bool:
    """Whether a value is pandas' NaT or NA, or NumPy's NaT: none of them equals itself."""
    if type(value).__name__ == "NAType":
        return True
    if getattr(value, "shape", ()) != () or isinstance(value, Sequence | Mapping):
        return False
    return bool(value != value)  # noqa: PLR0124


def _moment(value: datetime.datetime, pointer: str) -> str:
    if value.tzinfo is None:
        raise ValueError(f"{pointer or 'the time'} {NO_ZONE}")
    return value.isoformat()


def _is_picture(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("mode", "convert", "save"))


def _float(value: float, pointer: str) -> float | None:
    if math.isinf(value):
        raise ValueError(f"{pointer or 'the number'} {NOT_FINITE}")
    return None if math.isnan(value) else float(value)


def _each(value: Sequence[Any], pointer: str) -> list[Any]:
    return [plain(one, f"{pointer}/{index}") for index, one in enumerate(value)]


def _named(value: Mapping[Any, Any], pointer: str) -> dict[str, Any]:
    return {str(name): plain(one, f"{pointer}/{name}") for name, one in value.items()}


def _numbers(value: Any, pointer: str) -> Any:
    """Returns an array as nested lists; their NaN is written as ``null``."""
    kind = getattr(getattr(value, "dtype", None), "kind", "O")  # of NumPy; others have texts, objects or numbers
    if kind in {"i", "u"}:
        return value.tolist()
    if kind == "b":
        return (value * 1).tolist()
    if kind == "f":
        if (abs(value) == math.inf).any():
            raise ValueError(f"{pointer or 'the array'} {NOT_FINITE}")
        return value.tolist()
    if kind in NO_NUMBERS:
        raise ValueError(f"{pointer or 'the value'} {NO_NUMBERS[kind]}")
    return plain(value.tolist(), pointer)


def _png(picture: Any, _: str) -> bytes:
    file = io.BytesIO()
    (picture if picture.mode in PNG_MODES else picture.convert("RGB")).save(file, "PNG")
    return file.getvalue()


def _is_a(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


# What a value may be, and what becomes of it; the first that fits.
KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str], Any]], ...] = (
    (_is_a(str, NoneType), lambda value, _: value),
    (_is_a(float), _float),
    (_is_a(int), lambda value, _: int(value)),  # a truth value, too
    (_is_a(bytes, bytearray, memoryview), lambda value, _: bytes(value)),
    (_is_a(os.PathLike), lambda value, _: Path(value).read_bytes()),
    (_is_missing, lambda *_: None),
    (_is_a(datetime.datetime), _moment),
    (_is_a(Mapping), _named),
    (_is_picture, _png),
    (lambda value: hasattr(value, "tolist"), _numbers),
    (_is_a(Sequence), _each),
)
