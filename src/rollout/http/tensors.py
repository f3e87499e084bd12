"""Tensors of the Open Inference Protocol: from binary data, JSON or typed lists to arrays, and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from rollout.bundle.codec import Codec, CodecError
from rollout.bundle.columns import LENGTHS, ragged
from rollout.bundle.fields import Field, Number, Tensor
from rollout.bundle.image import Image
from rollout.bundle.schema import InvalidInputsError
from rollout.bundle.wire import Free
from rollout.errors import FieldError

STRINGS = "BYTES"
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
LENGTH = struct.Struct("<I")

# What a tensor holds, by how it came: JSON, binary data, or a list of numbers or strings.
Content = msgspec.Raw | memoryview | Sequence[Any]

_decode_strings = msgspec.json.Decoder(list[str | Annotated[list[str], Meta(min_length=1, max_length=1)]]).decode


class Declaration(NamedTuple):
    """What a tensor of a model is, as its metadata say it.

    Attributes:
        name: The name of the field, or of the part of the answer.
        datatype: In the protocol's terms, such as ``FP32``.
        shape: With -1 for the rows, and for a free dimension.
    """

    name: str
    datatype: str
    shape: list[int]


class Column(NamedTuple):
    """One input of all rows.

    Attributes:
        array: Shape ``(rows, *field.shape)``, or ragged; read-only where it is a view of the request.
        texts: What was sent for each row, where the field is made from a string.
    """

    array: NDArray[Any]
    texts: Sequence[str] | None = None


class SentRows(Sequence[Mapping[str, Any]]):
    """The inputs of each row as what is kept for a reviewer, made when somebody asks: few rows go to review.

    Args:
        columns: The inputs by field.
        fields: The fields.
    """

    def __init__(self, columns: Mapping[str, Column], fields: Mapping[str, Field]) -> None:
        self._columns = columns
        self._fields = fields

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())).array)

    def __getitem__(self, index: Any) -> Any:
        return {
            name: self._fields[name].keep(None, array[index]) if texts is None else texts[index]
            for name, (array, texts) in self._columns.items()
        }


class OutputTensor(NamedTuple):
    """One part of the answers to all rows.

    Attributes:
        name: The name of the part.
        datatype: ``BYTES`` or ``FP32``.
        shape: With the rows first.
        values: An array of this shape, or a string for each row.
    """

    name: str
    datatype: str
    shape: list[int]
    values: NDArray[np.float64] | list[str]

    def to_binary(self) -> bytes:
        """Returns the elements in row-major order, strings with their length before them."""
        if isinstance(self.values, list):
            return b"".join(map(_with_length, self.values))
        return self.values.astype("<f4").tobytes()

    def to_list(self) -> list[Any]:
        """Returns the elements in row-major order."""
        return self.values if isinstance(self.values, list) else self.values.ravel().tolist()


def declare(name: str, field: Field) -> Declaration:
    """Says what an input takes: numbers in the shape of the field, or a string for each row."""
    if _is_numeric(field):
        return Declaration(name, DATATYPES[field.dtype], [-1, *([-1] if field.free else []), *field.step_shape])
    return Declaration(name, STRINGS, [-1])


def declare_lengths(fields: Mapping[str, Field]) -> dict[str, Field]:
    """Returns the inputs that say how long the rows of others are, by name; they may be left out."""
    return {
        f"{name}{LENGTHS}": Tensor(shape=(), dtype="int64", minimum=1, maximum=field.free.longest)
        for name, field in fields.items()
        if field.free
    }


def row_shape(shape: Sequence[int], declared: Declaration, free: Free | None, most: int) -> tuple[int, ...]:
    """Returns the shape of one row of a tensor; one element a row may come as ``[rows]`` or as ``[rows, 1]``.

    Raises:
        InvalidInputsError: If the shape is not the declared one, or there are no rows or steps, or too many.
    """
    per_row = list(declared.shape[1:])
    sent = list(shape[1:])
    if free is not None and sent:
        if not 1 <= sent[0] <= free.longest:
            raise fault("/shape", f"must have 1 to {free.longest} {free.name}, not {sent[0]}")
        per_row[0] = sent[0]
    if not shape or (sent != per_row and not (per_row == [] and sent == [1])):
        raise fault(
            "/shape", f"must be [{', '.join(['rows', *map(str, declared.shape[1:])])}], not {list(shape)}"
        )
    if not 1 <= shape[0] <= most:
        raise fault("/shape", f"must begin with 1 to {most} rows, not {shape[0]}")
    return tuple(per_row)


def read_content(content: Content, field: Field, codec: Codec, rows: int, shape: tuple[int, ...]) -> Column:
    """Turns what a tensor holds into an array, and checks every element.

    Binary numbers are not copied: the array is a view of the request.

    Args:
        content: What the tensor holds.
        field: The field that it is for.
        codec: The field's own; strings are decoded as in a JSON request.
        rows: How many rows its shape says.
        shape: What it says of one row.

    Raises:
        InvalidInputsError: If it does not fit the shape or the field; pointers are relative to the tensor.
    """
    if not _is_numeric(field):
        return _read_strings(_strings(content, rows), codec, rows)
    if isinstance(content, msgspec.Raw):
        return Column(_rows(_read_json(content, field, rows, shape), field))
    if isinstance(content, memoryview):
        array = _read_binary(content, field, rows, shape)
    else:
        array = np.array(content, np.float32 if field.dtype == "float32" else np.int64)
        _require_size(array.size, rows * math.prod(shape), "elements")
    array = array.reshape(rows, *shape)
    _check_limits(array, field)
    return Column(_rows(array.astype(field.dtype, copy=False), field))


def cut(column: Column, known: Column) -> Column:
    """Leaves of each row of a free length what its length says.

    Raises:
        InvalidInputsError: If a row is said to be longer than it is, or there are not as many lengths as rows.
    """
    own = known.array.tolist()
    if len(own) != len(column.array):
        raise fault("/shape", f"must be [{len(column.array)}], a length for each row, not [{len(own)}]")
    for row, (length, array) in enumerate(zip(own, column.array, strict=True)):
        if length > len(array):
            raise fault("", f"holds {length} at [{row}], and the row has {len(array)} steps")
    return Column(ragged(array[:length] for length, array in zip(own, column.array, strict=True)))


def fault(pointer: str, detail: str) -> InvalidInputsError:
    """Returns the error of one fault."""
    return InvalidInputsError([FieldError(pointer, detail)])


def _rows(array: NDArray[Any], field: Field) -> NDArray[Any]:
    return array if field.free is None else ragged(array)


def _is_numeric(field: Field) -> bool:
    return isinstance(field, Tensor | Image | Number)


def _require_size(found: int, wanted: int, unit: str) -> None:
    if found != wanted:
        raise fault("", f"holds {found} {unit}; its shape and datatype take {wanted}")


def _read_binary(data: memoryview, field: Field, rows: int, shape: tuple[int, ...]) -> NDArray[Any]:
    dtype = np.dtype(field.dtype).newbyteorder("<")
    _require_size(len(data), rows * math.prod(shape) * dtype.itemsize, "bytes")
    # Numbers that begin at an odd address are moved: not every runtime takes them.
    return np.require(np.frombuffer(data, dtype), requirements="A")


def _check_limits(array: NDArray[Any], field: Field) -> None:
    low, high = field.limits  # type: ignore[union-attr]  # numeric fields have them
    if low <= array.min() and array.max() <= high:  # NaN is neither
        return
    first = tuple(np.argwhere(~((array >= low) & (array <= high)))[0].tolist())
    raise fault("", f"holds {array[first]} at {list(first)}; it must lie between {low:g} and {high:g}")


def _read_json(raw: msgspec.Raw, field: Field, rows: int, row: tuple[int, ...]) -> NDArray[Any]:
    """Reads lists in the shape of the tensor, or one list of all its elements."""
    data = bytes(raw).strip()
    shape = (rows, *row)
    is_nested = data[:8].translate(None, b" \t\r\n").startswith(b"[[")
    sent = (rows, *(row or (1,))) if is_nested else (math.prod(shape),)
    low, high = (getattr(field, name, None) for name in ("minimum", "maximum"))
    wanted = Tensor(shape=sent, dtype=field.dtype, minimum=low, maximum=high)
    try:
        return Codec(wanted).decode(data).reshape(shape)
    except CodecError as error:
        raise fault(f"/data{error.pointer}", error.detail) from None


def _strings(content: Content, rows: int) -> Sequence[Any]:
    if isinstance(content, memoryview):
        return _split_strings(content, rows)
    if isinstance(content, msgspec.Raw):
        try:
            return [one if isinstance(one, str) else one[0] for one in _decode_strings(content)]
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise fault("/data", "must be a list of strings, in UTF-8") from None
    return content


def _split_strings(data: memoryview, rows: int) -> list[bytes]:
    texts: list[bytes] = []
    at = 0
    while len(texts) < rows and at + LENGTH.size <= len(data):
        (size,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size + size
        texts.append(bytes(data[at - size : at]))
    if len(texts) != rows or at != len(data):
        raise fault(
            "", f"must hold {rows} strings, each after its length in 4 bytes; its {len(data)} bytes do not"
        )
    return texts


def _read_strings(strings: Sequence[str | bytes], codec: Codec, rows: int) -> Column:
    _require_size(len(strings), rows, "strings")
    texts: list[str] = []
    arrays = []
    errors = []
    for row, string in enumerate(strings):
        try:
            texts.append(string if isinstance(string, str) else string.decode())
            arrays.append(codec.decode(msgspec.json.encode(texts[-1])))
        except UnicodeDecodeError:
            errors.append(FieldError(f"/data/{row}", "is not UTF-8"))
        except CodecError as error:
            errors.append(FieldError(f"/data/{row}", error.detail))
    if errors:
        raise InvalidInputsError(errors)
    return Column(np.stack(arrays), texts)


@lru_cache(maxsize=4096)
def _with_length(text: str) -> bytes:
    data = text.encode()
    return LENGTH.pack(len(data)) + data
