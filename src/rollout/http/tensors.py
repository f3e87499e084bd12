"""Tensors of the Open Inference Protocol: from binary data, JSON or typed lists to arrays, and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from rollout.bundle.codec import Codec, CodecError
from rollout.bundle.columns import ragged
from rollout.bundle.fields import Field, Tensor
from rollout.bundle.image_file import PixelBudget
from rollout.bundle.schema import InvalidInputsError
from rollout.bundle.wire import Free
from rollout.errors import NO_JSON, FieldError

STRINGS = "BYTES"
# Of a shape that is none.
MOST_SHOWN = 16
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
# How the elements of an answer are written.
WRITTEN = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
LENGTH = struct.Struct("<I")

# What a tensor holds, by how it came: JSON, binary data, or a list of numbers or strings.
Content = msgspec.Raw | memoryview | Sequence[Any]

# What came for a row where it is no number: in JSON, a file is in base64.
Sent = str | bytes | UnsetType

_decode_strings = msgspec.json.Decoder(
    list[str | Annotated[list[str | None], Meta(min_length=1, max_length=1)] | None]
).decode


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
        sent: The numbers as they came, NaN where one is missing, or the string or the file of each row, ``UNSET``
            where there is none.
    """

    array: NDArray[Any]
    sent: NDArray[Any] | Sequence[Sent]


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
        values = {
            name: self._fields[name].keep(None, sent[index]) if isinstance(sent, np.ndarray) else sent[index]
            for name, (_, sent) in self._columns.items()
        }
        return {name: value for name, value in values.items() if value is not UNSET}


class OutputTensor(NamedTuple):
    """One part of the answers to all rows.

    Attributes:
        name: The name of the part.
        datatype: ``BYTES``, or one of ``WRITTEN``.
        shape: With the rows first.
        values: An array of this shape, in any type that holds them; or a string for each row.
    """

    name: str
    datatype: str
    shape: list[int]
    values: NDArray[Any] | list[str]

    def to_binary(self) -> bytes:
        """Returns the elements in row-major order, strings with their length before them."""
        if self.datatype == STRINGS:
            return b"".join(map(_with_length, self.to_list()))
        return np.asarray(self.values, WRITTEN[self.datatype]).tobytes()

    def to_list(self) -> list[Any]:
        """Returns the elements in row-major order, numbers with all their digits."""
        if isinstance(self.values, list):
            return self.values
        if self.datatype == STRINGS or np.issubdtype(written := WRITTEN[self.datatype], np.floating):
            return self.values.ravel().tolist()
        return self.values.ravel().astype(written).tolist()


def declare(name: str, field: Field) -> Declaration:
    """Says what an input takes: numbers in the shape of the field, or a string for each row."""
    if field.limits is not None:
        sizes = [-1 if isinstance(size, str) else size for size in field.shape]
        return Declaration(name, DATATYPES[field.dtype], [-1, *sizes])
    return Declaration(name, STRINGS, [-1])


def row_shape(shape: Sequence[int], declared: Declaration, free: Free | None, most: int) -> tuple[int, ...]:
    """Returns the shape of one row of a tensor; one element a row may come as ``[rows]`` or as ``[rows, 1]``.

    Raises:
        InvalidInputsError: If the shape is not the declared one, or there are no rows or steps, or too many.
    """
    per_row, sent = list(declared.shape[1:]), list(shape[1:])
    if per_row[:1] == [-1] and free is not None and sent:
        if not 1 <= sent[0] <= free.longest:
            raise fault("/shape", f"must have 1 to {free.longest} {free.name}, not {sent[0]}")
        per_row[0] = sent[0]
    if not shape or (sent != per_row and not (per_row == [] and sent == [1])):
        wanted, found = ["rows", *declared.shape[1:]], list(shape[:MOST_SHOWN])
        more = " and so on" if len(shape) > MOST_SHOWN else ""
        raise fault("/shape", f"must be [{', '.join(map(str, wanted))}], not {found}{more}")
    if not 1 <= shape[0] <= most:
        raise fault("/shape", f"must begin with 1 to {most} rows, not {shape[0]}")
    return tuple(per_row)


def read_content(
    content: Content,
    field: Field,
    codec: Codec,
    rows: int,
    shape: tuple[int, ...],
    budget: PixelBudget | None = None,
) -> Column:
    """Turns what a tensor holds into an array, and checks every element.

    Binary numbers are not copied: the array is a view of the request.

    Args:
        content: What the tensor holds.
        field: The field that it is for.
        codec: The field's own; strings are decoded as in a JSON request, and bytes as files where it takes any.
        rows: How many rows its shape says.
        shape: What it says of one row.
        budget: What files may take from.

    Raises:
        InvalidInputsError: If it does not fit the shape or the field; pointers are relative to the tensor.
    """
    if field.limits is None:
        return _read_strings(_strings(content, rows), field, codec, rows, budget)
    if isinstance(content, msgspec.Raw):
        numbers = _read_json(content, field, rows, shape)
    elif isinstance(content, memoryview):
        numbers = _read_binary(content, field, rows, shape)
    else:
        numbers = np.array(content, np.float32 if field.dtype == "float32" else np.int64)
        _require_size(numbers.size, rows * math.prod(shape), "elements")
    numbers = numbers.reshape(rows, *shape)
    try:
        column = Column(field.admit(numbers), numbers)
    except ValueError as error:
        raise fault("", str(error)) from None
    return column if field.free is None else Column(ragged(column.array), ragged(numbers))


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
    array, sent = (ragged(row[:length] for length, row in zip(own, rows, strict=True)) for rows in column)
    return Column(array, sent)


def leave_out(field: Field, rows: int) -> Column:
    """Returns what stands for an input that a request leaves out, of a field whose value may be missing."""
    return Column(np.stack([np.asarray(field.missing)] * rows), [UNSET] * rows)


def fault(pointer: str, detail: str) -> InvalidInputsError:
    """Returns the error of one fault."""
    return InvalidInputsError([FieldError(pointer, detail)])


def _require_size(found: int, wanted: int, unit: str) -> None:
    if found != wanted:
        raise fault("", f"holds {found} {unit}; its shape and datatype take {wanted}")


def _read_binary(data: memoryview, field: Field, rows: int, shape: tuple[int, ...]) -> NDArray[Any]:
    dtype = np.dtype(field.dtype).newbyteorder("<")
    _require_size(len(data), rows * math.prod(shape) * dtype.itemsize, "bytes")
    # Numbers that begin at an odd address are moved: not every runtime takes them.
    return np.require(np.frombuffer(data, dtype), requirements="A")


def _read_json(raw: msgspec.Raw, field: Field, rows: int, row: tuple[int, ...]) -> NDArray[Any]:
    """Reads lists in the shape of the tensor, or one list of all its elements."""
    data = bytes(raw).strip()
    shape = (rows, *row)
    is_nested = data[:8].translate(None, b" \t\r\n").startswith(b"[[")
    sent = (rows, *(row or (1,))) if is_nested else (math.prod(shape),)
    low, high = (getattr(field, name, None) for name in ("minimum", "maximum"))
    nan = UNSET if field.fill is None else True
    wanted = Tensor(shape=sent, dtype=field.dtype, minimum=low, maximum=high, nan=nan)
    try:
        return Codec(wanted).decode(data).reshape(shape)
    except CodecError as error:
        raise InvalidInputsError(
            [FieldError(f"/data{pointer}", detail) for pointer, detail in error.errors]
        ) from None


def _strings(content: Content, rows: int) -> Sequence[Any]:
    if isinstance(content, memoryview):
        return _split_strings(content, rows)
    if isinstance(content, msgspec.Raw):
        try:
            return [one[0] if isinstance(one, list) else one for one in _decode_strings(content)]
        except NO_JSON:
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


def _read_strings(
    strings: Sequence[str | bytes | None], field: Field, codec: Codec, rows: int, budget: PixelBudget | None
) -> Column:
    """Reads a string a row; where it may be missing, an empty one is: binary tensors have no null."""
    _require_size(len(strings), rows, "strings")
    sent: list[Sent] = []
    arrays = []
    errors = []
    for row, string in enumerate(strings):
        try:
            if isinstance(string, bytes) and field.media_types:
                sent.append(string)
                arrays.append(codec.decode_file(string, budget))
                continue
            text = string.decode() if isinstance(string, bytes) else string
            if not text and codec.missing is not None:
                sent.append(UNSET)
                arrays.append(codec.missing)
                continue
            sent.append(UNSET if text is None else text)
            arrays.append(codec.decode(msgspec.json.encode(text), budget))
        except UnicodeDecodeError:
            errors.append(FieldError(f"/data/{row}", "is not UTF-8"))
        except CodecError as error:
            errors += [FieldError(f"/data/{row}", detail) for _, detail in error.errors]
    if errors:
        raise InvalidInputsError(errors)
    return Column(np.stack(arrays), sent)


@lru_cache(maxsize=4096)
def _with_length(text: str) -> bytes:
    data = text.encode()
    return LENGTH.pack(len(data)) + data
