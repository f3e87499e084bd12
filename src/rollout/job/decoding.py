"""The columns of a table as a model's inputs: numbers a column at a time, all else row by row, as the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle.fields import Field
from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays, InputSchema, InvalidInputsError
from rollout.errors import FieldError
from rollout.job.row import Columns

UNREADABLE = "cannot be read: a text is not UTF-8, say, or a time in no year from 1 to 9999"

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Decoded(NamedTuple):
    """Rows of a table.

    Attributes:
        arrays: The inputs of those that fit, in their order.
        faults: What is wrong with the others, by number; pointers begin at the row.
    """

    arrays: Arrays
    faults: Mapping[int, Sequence[FieldError]]

    def rows(self, places: Sequence[int]) -> Arrays:
        """Returns the inputs of some rows, each of which fits."""
        before = sorted(self.faults)
        own = np.array(places, np.intp) - np.searchsorted(before, places)
        return self.arrays if len(own) == len(next(iter(self.arrays.values()))) else take(self.arrays, own)


def decode_columns(schema: InputSchema, columns: Columns, table: Any) -> Decoded:
    """Decodes the inputs of a table's rows, to what the service would make of the same values in JSON.

    Args:
        schema: The model's input schema.
        columns: Which columns they are in.
        table: An Arrow table.
    """
    quick: Arrays = {}
    for name, field in schema.fields.items():
        array = _numbers(field, table.column(name)) if name in table.column_names else None
        if array is None:
            return _row_by_row(schema, columns, table)
        quick[name] = array
    return Decoded(quick, {})


def _row_by_row(schema: InputSchema, columns: Columns, table: Any) -> Decoded:
    wanted = [name for name in columns.readers if name in table.column_names]
    decoded: list[Arrays] = []
    faults: dict[int, list[FieldError]] = {}
    for index, record in enumerate(records_of(table.select(wanted))):
        if record is None:
            faults[index] = [FieldError("/inputs", UNREADABLE)]
            continue
        try:
            inputs = columns.inputs(record)
            decoded.append(schema.decode({name: _sent(schema.fields[name], inputs[name]) for name in inputs}))
        except InvalidInputsError as error:
            faults[index] = [FieldError(f"/inputs{pointer}", detail) for pointer, detail in error.errors]
    arrays = {name: np.stack([one[name] for one in decoded]) for name in schema.fields} if decoded else {}
    return Decoded(arrays, faults)


def records_of(table: Any) -> list[dict[str, Any] | None]:
    """Returns the rows of an Arrow table; ``None`` for one with a cell that nothing in Python can be.

    Arrow and Spark do not look whether a string is UTF-8, or a time is in a year that there is.
    """
    import pyarrow  # noqa: PLC0415

    try:
        return list(table.to_pylist())
    except (ValueError, OverflowError, pyarrow.ArrowException):
        if len(table) < 2:
            return [None] * len(table)
    half = len(table) // 2  # row by row, a wide table would take twenty times as long
    return records_of(table.slice(0, half)) + records_of(table.slice(half))


def _sent(field: Field, value: Any) -> msgspec.Raw | bytes:
    return value if isinstance(value, bytes) and field.media_types else msgspec.Raw(_encode(value))


def _numbers(field: Field, column: Any) -> NDArray[Any] | None:
    """Returns a column of numbers, or of lists of them, as an array of shape ``(rows, *field.shape)``.

    Returns:
        ``None`` where it is something else, or a value is missing or does not fit: then it is looked at by rows.
    """
    if field.limits is None or field.parts or field.free is not None:
        return None
    values = _flat(column, field.step_shape)
    kinds = "iuf" if field.dtype == "float32" else "iu"
    if values is None or values.null_count or (numbers := _array(values)).dtype.kind not in kinds:
        return None
    if field.dtype == "float32":
        numbers = numbers.astype(np.float64)  # as JSON has them
    try:
        return (
            field.admit(numbers.reshape(len(column), *field.step_shape)) if np.isfinite(numbers).all() else None
        )
    except ValueError:
        return None


def _flat(column: Any, shape: Sequence[int]) -> Any:
    """Returns what lists of lists hold, if they are of this shape; ``None`` if they are not."""
    import pyarrow.compute  # noqa: PLC0415

    values = column.combine_chunks()
    for size in shape:
        is_list = hasattr(values.type, "value_type") and not pyarrow.types.is_dictionary(values.type)
        if not is_list or values.null_count:
            return None
        if pyarrow.compute.any(
            pyarrow.compute.not_equal(pyarrow.compute.list_value_length(values), size)
        ).as_py():
            return None
        values = values.flatten()
    return values


def _array(values: Any) -> NDArray[Any]:
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array
