"""The messages of the Open Inference Protocol, as the types that decode, check and encode them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from rollout.bundle.codec import split_location
from rollout.errors import FieldError, InvalidRequestError, invalid


class InputParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of an input: how many bytes of binary data it has after the JSON."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None


class InputTensor(msgspec.Struct, forbid_unknown_fields=True):
    """An input of all rows, with its data in JSON where they are not binary."""

    name: str
    datatype: str
    shape: list[int]
    parameters: InputParameters = msgspec.field(default_factory=InputParameters)
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class OutputParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of a requested output: whether it is to be binary."""

    binary_data: bool | None = None


class RequestedOutput(msgspec.Struct, forbid_unknown_fields=True):
    """A part of the answers that the caller wants."""

    name: str
    parameters: OutputParameters = msgspec.field(default_factory=OutputParameters)


class RequestParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of a request.

    Attributes:
        client_id: The caller's own ID of the client, for all rows.
        key: The caller's own ID of the prediction, where there is one row.
        binary_data_output: Whether outputs are to be binary that do not say it themselves.
    """

    client_id: str | None = None
    key: str | None = None
    binary_data_output: bool = False


class InferRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request; without outputs it wants all of them."""

    inputs: list[InputTensor]
    id: str = ""
    parameters: RequestParameters = msgspec.field(default_factory=RequestParameters)
    outputs: list[RequestedOutput] = []


class InferredTensor(msgspec.Struct):
    """A part of the answers; ``binary_data_size`` is among its parameters where its data follow the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | UnsetType = UNSET
    data: list[Any] | UnsetType = UNSET


class InferResponse(msgspec.Struct):
    """An answer; its parameters are the client's arm, the revision of the split, and the variant that scored."""

    model_name: str
    model_version: str
    id: str | UnsetType
    parameters: dict[str, str | int]
    outputs: list[InferredTensor]


def explain(error: msgspec.ValidationError) -> InvalidRequestError:
    """Returns our error for a request that is not an ``InferRequest``."""
    detail, pointer = split_location(error)
    if "missing required field" in detail:
        pointer, detail = f"{pointer}/{detail.split()[-1]}", "is required"
    elif "unknown field" in detail and pointer.endswith("/parameters"):
        pointer, detail = f"{pointer}/{detail.split()[-1]}", "is not a parameter that this service has"
    return invalid([FieldError(pointer, detail)])
