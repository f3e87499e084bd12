"""An input schema: the named fields of one row, and their decoding from JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle.codec import Codec, decode_named
from rollout.bundle.columns import LENGTHS, lengths
from rollout.bundle.fields import Field, with_lengths
from rollout.bundle.image import Image
from rollout.bundle.image_file import PixelBudget
from rollout.errors import BundleError, FieldError, step_to

Arrays = dict[str, NDArray[Any]]
RawInputs = dict[str, msgspec.Raw]
# What came for each field: its JSON value, or the bytes of a file.
SentInputs = Mapping[str, msgspec.Raw | bytes]


class Labelled(NamedTuple):
    """One part of a data set.

    Attributes:
        inputs: For each field an array of shape ``(rows, *field.shape)``; for a free one a ragged column, as its
            ``encode`` makes it.
        targets: For each row the index of its class, or its value, shape ``(rows,)``.
    """

    inputs: Arrays
    targets: NDArray[Any]

    def only(self, names: Iterable[str]) -> Labelled:
        """Returns the rows with these inputs, in this order, and no others."""
        return Labelled({name: self.inputs[name] for name in names}, self.targets)


class InvalidInputsError(ValueError):
    """The inputs of one row do not fit; ``errors`` points at every fault, relative to the inputs."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{pointer}: {detail}" for pointer, detail in errors))
        self.errors = errors


class InputSchema:
    """Decodes and checks the inputs of one row.

    Args:
        fields: The fields by name, in the order of the module's arguments.

    Raises:
        BundleError: If a name is not a Python identifier, since the exported graphs carry it.

    Example:
        >>> import msgspec
        >>> from rollout import InputSchema, Tensor
        >>> schema = InputSchema({"speed": Tensor(shape=(), minimum=0)})
        >>> schema.decode({"speed": msgspec.Raw(b"3.5")})
        {'speed': array(3.5, dtype=float32)}
    """

    def __init__(self, fields: Mapping[str, Field]) -> None:
        if not fields or not all(name.isidentifier() and not name.startswith("_") for name in fields):
            raise BundleError(f"inputs must be named by Python identifiers, not {sorted(fields)}")
        self.fields = dict(fields)
        if taken := sorted({f"{name}{LENGTHS}" for name, field in fields.items() if field.free} & fields.keys()):
            raise BundleError(f"the input {taken[0]} has the name of the lengths of another: rename it")
        self._alike = _alike(fields)
        for field in fields.values():
            field.require()
        self.codecs = {name: _codec(name, field) for name, field in fields.items()}
        # What may come as tensors: the fields, and how long the rows of those are whose length is free.
        numbers = {name: field for name, field in fields.items() if field.limits is not None}
        self.tensors = {**fields, **with_lengths(numbers)}
        self.tensor_codecs = {name: self.codecs.get(name) or Codec(field) for name, field in self.tensors.items()}
        required = [name for name, field in fields.items() if field.missing is None]
        # The field that a file alone fills: what may be missing beside it is missing then.
        self.file_field = required[0] if len(required) == 1 and fields[required[0]].media_types else None
        self.has_large_images = any(isinstance(field, Image) and field.is_large for field in fields.values())

    def is_slow(self, inputs: SentInputs) -> bool:
        """Whether ``decode`` takes long enough to be moved off the event loop."""
        for name, codec in self.codecs.items():
            sent = inputs.get(name)
            if sent is None:
                continue
            if codec.is_slow(bytes(sent)) if isinstance(sent, msgspec.Raw) else codec.is_slow_file(sent):
                return True
        return False

    def decode(self, inputs: SentInputs, budget: PixelBudget | None = None) -> Arrays:
        """Checks every field and decodes it to an array of its shape and dtype.

        Args:
            inputs: For each field its JSON value, or a file where the field takes files.
            budget: What files may take from.

        Raises:
            InvalidInputsError: If a field is missing that must be there, unknown or does not fit.
        """
        arrays, errors = decode_named(self.codecs, inputs, "an input of this model", budget)
        if errors := errors or self.faults_of_lengths(arrays):
            raise InvalidInputsError(errors)
        return arrays

    def decode_row(self, inputs: SentInputs) -> Arrays:
        """Decodes as ``decode`` does, and returns columns of one row.

        Raises:
            InvalidInputsError: If a field is missing that must be there, unknown or does not fit.
        """
        return {name: array[None] for name, array in self.decode(inputs).items()}

    def faults_of_lengths(self, arrays: Mapping[str, NDArray[Any]]) -> list[FieldError]:
        """Returns what is wrong with the lengths of fields whose free dimensions have the same name.

        Args:
            arrays: The arrays of one row, or of several.
        """
        return [
            FieldError(
                step_to(other), f"has {found[1]} {dimension} where {name} has {found[0]}: they must be as many"
            )
            for name, other, dimension in self._alike
            if (found := _first_unequal(arrays[name], arrays[other]))
        ]

    def check_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Checks batched arrays against the schema.

        Args:
            arrays: For each field an array of shape ``(rows, *field.shape)``, or a ragged column.

        Returns:
            The number of rows.

        Raises:
            BundleError: If names, shapes, dtypes or numbers of rows do not fit.
        """
        if set(arrays) != set(self.fields):
            raise BundleError(f"expected arrays for {sorted(self.fields)}, got {sorted(arrays)}")
        for name, field in self.fields.items():
            try:
                field.check_column(arrays[name])
            except BundleError as error:
                raise BundleError(f"{name}: {error.detail}") from None
        rows = {len(array) for array in arrays.values()}
        if len(rows) != 1:
            raise BundleError("the arrays have different numbers of rows")
        for pointer, detail in self.faults_of_lengths(arrays):
            raise BundleError(f"{pointer[1:]} {detail}")
        return rows.pop()


def _codec(name: str, field: Field) -> Codec:
    try:
        return Codec(field)
    except (ValueError, TypeError, OverflowError) as error:  # a bundle from elsewhere may have any numbers
        raise BundleError(f"the input {name} cannot be: {error}") from None


def _alike(fields: Mapping[str, Field]) -> list[tuple[str, str, str]]:
    """Returns the fields that share the name of a free dimension: the first of that name, another, and the name.

    Raises:
        BundleError: If they do not have the same bound.
    """
    first: dict[str, str] = {}
    pairs = []
    for name, field in fields.items():
        if field.free is None or not field.free.is_shared:
            continue
        other = first.setdefault(field.free.name, name)
        if other != name:
            pairs.append((other, name, field.free.name))
            if field.free != fields[other].free:
                raise BundleError(
                    f"{other} and {name} give {field.free.name} different bounds: give both the same"
                )
    return pairs


def _first_unequal(one: NDArray[Any], other: NDArray[Any]) -> tuple[int, int] | None:
    pairs = zip(lengths(np.atleast_1d(one)), lengths(np.atleast_1d(other)), strict=False)
    return next(((int(first), int(second)) for first, second in pairs if first != second), None)
