"""An input schema: the named fields of one row, and their decoding from JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle.fields import Field
from rollout.errors import BundleError, FieldError

Arrays = dict[str, NDArray[Any]]


class InvalidInputsError(ValueError):
    """The inputs of one row do not fit; ``errors`` points at every fault, relative to the inputs."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{pointer}: {detail}" for pointer, detail in errors))
        self.errors = errors


class InputSchema:
    """Checks and decodes the ``inputs`` object of one row; ``wire_type`` is its parsed form.

    Args:
        fields: The fields by name, in the order of the module's arguments.

    Raises:
        BundleError: If a name is not a Python identifier, since the exported graphs carry it.

    Example:
        >>> from rollout import InputSchema, Tensor
        >>> schema = InputSchema({"speed": Tensor(shape=(), minimum=0)})
        >>> schema.decode(b'{"speed": 3.5}')
        {'speed': array(3.5, dtype=float32)}
    """

    def __init__(self, fields: Mapping[str, Field]) -> None:
        if not fields or not all(name.isidentifier() and not name.startswith("_") for name in fields):
            raise BundleError(f"inputs must be named by Python identifiers, not {sorted(fields)}")
        self.fields = dict(fields)
        self.wire_type = msgspec.defstruct(
            "Inputs", [(name, field.wire_type) for name, field in fields.items()], forbid_unknown_fields=True
        )

    def is_slow(self, parsed: msgspec.Struct) -> bool:
        """Whether ``to_arrays`` takes long enough to be moved off the event loop."""
        return any(field.is_slow(getattr(parsed, name)) for name, field in self.fields.items())

    def to_arrays(self, parsed: msgspec.Struct) -> Arrays:
        """Decodes every field of a parsed ``wire_type`` to an array of its shape and dtype.

        Raises:
            InvalidInputsError: If a value cannot be decoded.
        """
        arrays: Arrays = {}
        errors = []
        for name, field in self.fields.items():
            try:
                arrays[name] = field.decode(getattr(parsed, name))
            except ValueError as error:
                errors.append(FieldError(f"/{name}", str(error)))
        if errors:
            raise InvalidInputsError(errors)
        return arrays

    def decode(self, raw: bytes | msgspec.Raw) -> Arrays:
        """Checks and decodes the JSON object ``raw``.

        Raises:
            InvalidInputsError: If a field is missing, unknown, does not fit or cannot be decoded.
        """
        if errors := self.find_errors(raw):
            raise InvalidInputsError(errors)
        return self.to_arrays(msgspec.json.decode(raw, type=self.wire_type))

    def check_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Checks batched arrays against the schema.

        Args:
            arrays: For each field an array of shape ``(rows, *field.shape)``.

        Returns:
            The number of rows.

        Raises:
            BundleError: If names, shapes, dtypes or numbers of rows do not fit.
        """
        if set(arrays) != set(self.fields):
            raise BundleError(f"expected arrays for {sorted(self.fields)}, got {sorted(arrays)}")
        for name, field in self.fields.items():
            array = arrays[name]
            if array.shape[1:] != field.shape or array.dtype != np.dtype(field.dtype):
                raise BundleError(
                    f"{name}: expected shape (rows, {', '.join(map(str, field.shape))}) and {field.dtype}, "
                    f"got {array.shape} and {array.dtype}"
                )
        rows = {len(array) for array in arrays.values()}
        if len(rows) != 1:
            raise BundleError("the arrays have different numbers of rows")
        return rows.pop()

    def find_errors(self, raw: bytes | msgspec.Raw) -> list[FieldError]:
        """Returns every fault of the JSON object ``raw``, but for those that only ``to_arrays`` can tell."""
        try:
            values = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            return [FieldError("", f"must be an object with the fields {', '.join(self.fields)}")]
        errors = [
            FieldError(f"/{name}", f"is not an input of this model; it takes {', '.join(self.fields)}")
            for name in values.keys() - self.fields.keys()
        ]
        for name, field in self.fields.items():
            if name not in values:
                errors.append(FieldError(f"/{name}", "is required"))
                continue
            try:
                msgspec.json.decode(values[name], type=field.wire_type)
            except msgspec.DecodeError as error:
                detail, pointer = split_location(error)
                errors.append(FieldError(f"/{name}{pointer}", f"{detail}; {name} must be {field.expected}"))
        return errors


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
