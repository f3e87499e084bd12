"""The Open Inference Protocol, whichever way it comes in: from a request to rows, and from answers to tensors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from rollout.__about__ import __version__
from rollout.bundle.columns import LENGTHS
from rollout.bundle.image_file import PixelBudget
from rollout.bundle.schema import InvalidInputsError
from rollout.config import Settings
from rollout.errors import FieldError, InvalidRequestError, UnknownModelError, invalid
from rollout.heads import Head
from rollout.http.oip_messages import InferRequest, InputTensor, RequestedOutput
from rollout.http.predict import decoding_threads
from rollout.http.request_options import RequestOptions
from rollout.http.tensors import (
    STRINGS,
    Column,
    Content,
    Declaration,
    OutputTensor,
    SentRows,
    cut,
    declare,
    fault,
    leave_out,
    read_content,
    row_shape,
)
from rollout.inference.engine import Engine
from rollout.inference.rows import Answers, Rows, require_identifier
from rollout.inference.served_model import ServedModel
from rollout.inference.version import LoadedVersion
from rollout.routing.assignment import assign

NO_CLIENT = ""
# What a request may name beside what the model has, so that one too many is named.
MORE_TENSORS = 8


class Inferred(NamedTuple):
    """The answer to a request.

    Attributes:
        version: The version that answered.
        said: What else is said of the answer.
        outputs: The parts that were asked for, in that order.
        answers: What the engine made of the rows.
    """

    version: str
    said: dict[str, str | int]
    outputs: list[OutputTensor]
    answers: Answers


def server_metadata() -> dict[str, Any]:
    """Says what this server is."""
    return {"name": "rollout", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_metadata(model: ServedModel, version: str) -> dict[str, Any]:
    """Says which versions of a model are in memory, and what the one that is asked for takes and gives.

    Raises:
        UnknownModelError: If there is no such version.
    """
    loaded = find_version(model, version)
    return {
        "name": model.name,
        "versions": list(model.versions),
        "platform": loaded.variant,
        "inputs": [declare(name, field)._asdict() for name, field in loaded.schema.tensors.items()],
        "outputs": [output._asdict() for output in declare_outputs(loaded.manifest.task)],
    }


def find_version(model: ServedModel, version: str) -> LoadedVersion:
    """Returns a version that is in memory; the champion where none is named.

    Raises:
        UnknownModelError: If there is no such version.
    """
    try:
        return model.versions[version] if version else model.champion
    except KeyError:
        raise UnknownModelError(
            f"{model.name} has no version {version!r} in memory; it has {', '.join(model.versions)}"
        ) from None


def declare_outputs(head: Head) -> list[Declaration]:
    """Says what the answers to rows are made of."""
    parts = [Declaration(name, datatype, [-1, *shape]) for name, (datatype, shape) in head.declared().items()]
    return [*parts, Declaration("review", STRINGS, [-1])]


def check_counts(model: ServedModel, inputs: int, outputs: int) -> None:
    """Refuses more tensors than could all be named when something is wrong with each.

    Raises:
        InvalidRequestError: If there are.
    """
    has = {"inputs": (inputs, len(model.schema.tensors)), "outputs": (outputs, len(declare_outputs(model.task)))}
    errors = [
        FieldError(f"/{name}", f"holds {count:,} tensors; {model.name} has {most} {name}")
        for name, (count, most) in has.items()
        if count > most + MORE_TENSORS
    ]
    if errors:
        raise invalid(errors)


async def infer(
    engine: Engine,
    model: ServedModel,
    version: str,
    request: InferRequest,
    contents: Sequence[Content],
    client_id: str | None,
    settings: Settings,
    deadline: float,
    options: RequestOptions,
) -> Inferred:
    """Answers a request.

    Args:
        engine: The engine.
        model: The model.
        version: The version that the caller named, if any; it must be the one that the client gets.
        request: What is asked.
        contents: What each of its inputs holds.
        client_id: The client ID that came beside the request; one in its parameters comes first.
        settings: Limits.
        deadline: ``time.monotonic()`` after which nobody waits for the answer.
        options: What the headers ask for.

    Raises:
        RolloutError: If the request is refused, or a row of it fails: it is answered whole or not at all.
    """
    check_counts(model, len(request.inputs), len(request.outputs))
    client = NO_CLIENT
    for pointer, value in (("/parameters/client_id", request.parameters.client_id), ("/client_id", client_id)):
        if value is not None:
            client = require_identifier(value, pointer)
            break
    key = request.parameters.key
    columns = await _read(request.inputs, contents, model, settings)
    names = _output_names(request.outputs, model.task)
    sent = SentRows(columns, model.schema.fields)
    if key is not None and len(sent) > 1:
        raise invalid(
            [
                FieldError(
                    "/parameters/key", f"names one prediction, and there are {len(sent)} rows: send one at a time"
                )
            ]
        )
    _require_version(model, version, client, options)
    rows = Rows(
        [client] * len(sent),
        [None if key is None else require_identifier(key, "/parameters/key")] * len(sent),
        {name: columns[name].array for name in model.schema.fields},
        sent,
        deadline,
        options.segment,
        options.preview,
        [options.traceparent] * len(sent),
    )
    answers = await engine.predict(model, rows)
    answered_by = answers.version(0)
    said: dict[str, str | int] = {
        "arm": answers.assignments[0].arm,
        "variant": answers.variants[answered_by],
        "revision": answers.split.revision,
    }
    if answers.fallbacks:
        # One client, one arm; where only some rows fell back, the challenger answered the others.
        said["fallback"] = next(iter(answers.fallbacks.values()))
    return Inferred(answered_by, said, [_output(name, answers) for name in names], answers)


def _require_version(model: ServedModel, version: str, client: str, options: RequestOptions) -> None:
    if options.preview is not None:
        return
    given = assign(model.split, client, options.segment)
    if version and find_version(model, version).version != given.version:
        raise InvalidRequestError(
            f"this client gets {given.version}, as {given.arm}, not {version}: leave the version out of the "
            "request, the split decides"
        )


async def _read(
    inputs: Sequence[InputTensor], contents: Sequence[Content], model: ServedModel, settings: Settings
) -> dict[str, Column]:
    """Reads the inputs here, or in a thread where there are files among them."""
    budget = PixelBudget(settings.max_pixels)
    read = partial(_read_inputs, inputs, contents, model, settings.max_instances, budget)
    files = {name for name, field in model.schema.fields.items() if field.media_types and field.limits is None}
    if not any(tensor.name in files for tensor in inputs):
        return read()
    return await asyncio.get_running_loop().run_in_executor(decoding_threads(settings.workers), read)


def _read_inputs(
    inputs: Sequence[InputTensor],
    contents: Sequence[Content],
    model: ServedModel,
    most: int,
    budget: PixelBudget,
) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    errors: list[FieldError] = []
    for index, (tensor, content) in enumerate(zip(inputs, contents, strict=True)):
        try:
            if tensor.name in columns:
                raise fault("/name", f"{tensor.name} is there twice")
            columns[tensor.name] = _read_input(tensor, content, model, most, budget)
        except InvalidInputsError as error:
            errors += [FieldError(f"/inputs/{index}{pointer}", detail) for pointer, detail in error.errors]
    for index, tensor in enumerate(inputs if not errors else ()):
        cut_name = tensor.name.removesuffix(LENGTHS)
        if tensor.name not in model.schema.fields and cut_name in columns:
            try:
                columns[cut_name] = cut(columns[cut_name], columns.pop(tensor.name))
            except InvalidInputsError as error:
                errors += [FieldError(f"/inputs/{index}{pointer}", detail) for pointer, detail in error.errors]
    if not errors:
        errors += _missing(columns, model)
    if not errors:
        arrays = {name: column.array for name, column in columns.items()}
        errors += [FieldError("/inputs", f"{at[1:]} {why}") for at, why in model.schema.faults_of_lengths(arrays)]
    if errors:
        raise invalid(errors)
    rows = len(next(iter(columns.values())).array)
    return {name: columns.get(name) or leave_out(field, rows) for name, field in model.schema.fields.items()}


def _read_input(
    tensor: InputTensor, content: Content, model: ServedModel, most: int, budget: PixelBudget
) -> Column:
    takes = model.schema.tensors
    if tensor.name not in takes:
        raise fault("/name", f"{tensor.name} is not an input of this model; it takes {', '.join(takes)}")
    field = takes[tensor.name]
    declared = declare(tensor.name, field)
    if tensor.datatype != declared.datatype:
        raise fault("/datatype", f"must be {declared.datatype}, not {tensor.datatype}")
    shape = row_shape(tensor.shape, declared, field.free, most)
    codec = model.schema.tensor_codecs[tensor.name]
    return read_content(content, field, codec, tensor.shape[0], shape, budget)


def _missing(columns: dict[str, Column], model: ServedModel) -> Iterator[FieldError]:
    for name, field in model.schema.fields.items():
        if name not in columns and field.missing is None:
            _, datatype, shape = declare(name, field)
            yield FieldError("/inputs", f"lacks {name}, {datatype} of shape {shape}")
    if not columns:
        yield FieldError("/inputs", "holds none, so there are no rows: send one of them at least")
    if len({len(column.array) for column in columns.values()}) > 1:
        rows = ", ".join(f"{len(column.array)} of {name}" for name, column in columns.items())
        yield FieldError("/inputs", f"must have the same rows everywhere, not {rows}")


def _output_names(outputs: Sequence[RequestedOutput], head: Head) -> list[str]:
    names = [output.name for output in declare_outputs(head)]
    asked: set[str] = set()
    errors: list[FieldError] = []
    for index, output in enumerate(outputs):
        pointer = f"/outputs/{index}/name"
        if output.name not in names:
            errors.append(FieldError(pointer, f"{output.name} is not an output; there are {', '.join(names)}"))
        elif output.name in asked:
            errors.append(FieldError(pointer, f"{output.name} is there twice"))
        asked.add(output.name)
    if errors:
        raise invalid(errors)
    return [output.name for output in outputs] or names


def _output(name: str, answers: Answers) -> OutputTensor:
    head, decisions = answers.task, answers.decisions
    rows = len(decisions)
    if name == "review":
        fates: list[str] = [answers.fates.get(row) or "" for row in range(rows)] if answers.fates else [""] * rows
        return OutputTensor(name, STRINGS, [rows], fates)
    values = head.tensor(name, decisions.numbers)
    datatype, shape = head.declared()[name]
    return OutputTensor(
        name, datatype, [rows, *shape] if isinstance(values, list) else list(values.shape), values
    )
