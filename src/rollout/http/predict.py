"""Predict over HTTP: from a body to rows, and from predictions to a body."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from starlette.types import Scope

from rollout.bundle.image_file import PixelBudget
from rollout.bundle.schema import Arrays, InputSchema, InvalidInputsError, RawInputs, SentInputs
from rollout.config import Settings
from rollout.cores import usable_cores
from rollout.errors import DeadlineExceededError, FieldError, invalid
from rollout.http.bodies import Identifier, decode_json
from rollout.http.request_options import DEFAULTS, RequestOptions
from rollout.inference.rows import ID_LIMIT, Answers, Prediction, Rows

# A long request lets the others have the event loop after this many seconds of decoding.
SLICE_S = 0.0005


class Instance(msgspec.Struct, forbid_unknown_fields=True):
    """One row as it comes in; its inputs are not decoded yet."""

    client_id: Identifier
    inputs: RawInputs
    key: Identifier | None = None


class FileRow(NamedTuple):
    """One row that came as a file or a form, where an input may be a file's bytes."""

    client_id: str
    inputs: SentInputs
    key: str | None


Row = Instance | FileRow
# Takes a body apart: its rows, and whether it is one row, not a list of instances.
Read = Callable[[bytes], tuple[Sequence[Row], bool]]


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """Either one row, or ``instances``."""

    client_id: Identifier | UnsetType = UNSET
    inputs: RawInputs | UnsetType = UNSET
    key: Identifier | UnsetType | None = UNSET
    instances: list[Instance] | UnsetType = UNSET


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_instance = msgspec.json.Decoder(Instance).decode
_encode = msgspec.json.Encoder().encode


class Request(NamedTuple):
    """A decoded body.

    Attributes:
        rows: The rows, in the order of the instances.
        single: Whether the body was one row, not a list of instances.
    """

    rows: Rows
    single: bool


async def decode_request(
    body: bytes,
    schema: InputSchema,
    settings: Settings,
    options: RequestOptions = DEFAULTS,
    is_gone: Callable[[], bool] = lambda: False,
    read: Read | None = None,
) -> Request:
    """Decodes and checks a whole request.

    Args:
        body: All of it.
        schema: The model's input schema.
        settings: Limits.
        options: What the headers ask for.
        is_gone: Says whether whoever asked has left.
        read: Takes the body apart; without it, the body is JSON.

    Raises:
        MalformedBodyError: If the body is not what it should be.
        InvalidRequestError: If anything in it does not fit; every faulty field is pointed at.
        DeadlineExceededError: If decoding takes too long, or nobody waits for it any more.
    """
    deadline = time.monotonic() + (options.timeout_ms or settings.timeout_ms) / 1000
    instances, single = read(body) if read else read_json(body, settings.max_instances)
    decoder = Decoder(schema, settings, deadline, is_gone)
    decoded = await decoder.decode(instances, PixelBudget(settings.max_pixels))
    faulty = {index: one for index, one in enumerate(decoded) if isinstance(one, list)}
    if faulty:
        errors = [
            FieldError(pointer if single else f"/instances/{index}{pointer}", detail)
            for index, one in faulty.items()
            for pointer, detail in one
        ]
        raise invalid(errors, instances[min(faulty)].client_id)
    return Request(make_rows(instances, decoded, deadline, options), single)


def decode_quickly(
    body: bytes, schema: InputSchema, most: int, read: Read | None = None
) -> tuple[Sequence[Row], Sequence[Arrays], bool] | None:
    """Decodes a small request at once.

    Args:
        body: All of it.
        schema: The model's input schema.
        most: How many instances it may hold.
        read: Takes the body apart; without it, the body is JSON.

    Returns:
        Its instances, the arrays of each, and whether it is one row, not a list of instances; ``None`` where
        something is wrong or takes longer, which ``decode_request`` is for.

    Raises:
        RolloutError: If it is not a request.
    """
    instances, single = read(body) if read else read_json(body, most)
    decoded: list[Arrays] = []
    for instance in instances:
        if _check_identifiers(instance) or schema.is_slow(instance.inputs):
            return None
        try:
            decoded.append(schema.decode(instance.inputs))
        except InvalidInputsError:
            return None
    return instances, decoded, single


def whether_gone(scope: Scope) -> Callable[[], bool]:
    """Returns what says whether the client of a request has left, as far as the server's protocol tells."""
    exchange = scope.get("exchange")
    return lambda: exchange is not None and exchange.disconnected


def whether_hung_up(scope: Scope) -> Callable[[], bool]:
    """Returns what says whether the client of a request has left or closed its side of the connection.

    Nobody can tell a client that closed its side from one that has gone before it is answered. For what costs
    seconds, it has gone.
    """
    is_gone, has_hung_up = whether_gone(scope), scope.get("has_hung_up", lambda: False)
    return lambda: is_gone() or has_hung_up()


def decode_instance(body: bytes) -> Instance:
    """Takes the envelope of one row apart.

    Raises:
        MalformedBodyError: If it is not JSON.
        InvalidRequestError: If it is not an instance; what is at fault is pointed at.
    """
    return decode_json(_decode_instance, body)


class Decoder:
    """Decodes rows, and lets others have the event loop in between; files in as many threads as there are cores.

    Args:
        schema: The model's input schema.
        settings: How many workers share the cores.
        deadline: ``time.monotonic()`` after which nobody waits for the rows.
        is_gone: Says whether whoever asked has left.
    """

    def __init__(
        self,
        schema: InputSchema,
        settings: Settings,
        deadline: float = math.inf,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._schema, self._settings = schema, settings
        self._deadline, self._is_gone = deadline, is_gone

    async def decode(
        self, instances: Sequence[Row], budget: PixelBudget | None = None
    ) -> list[Arrays | list[FieldError]]:
        """Decodes and checks rows.

        Args:
            instances: The rows.
            budget: What their files may have together; without one, each row has one of its own.

        Returns:
            For each row its arrays, of the shapes of the fields, or its faults, with pointers from the instance.

        Raises:
            DeadlineExceededError: If it takes too long, or nobody waits for it any more.
        """
        decoded: list[Arrays | list[FieldError]] = []
        pause_at = time.monotonic() + SLICE_S
        for instance in instances:
            errors = _check_identifiers(instance)
            try:
                arrays = await self._decode(instance.inputs, budget)
            except InvalidInputsError as error:
                errors += [FieldError(f"/inputs{pointer}", detail) for pointer, detail in error.errors]
            decoded.append(errors or arrays)
            if time.monotonic() > pause_at:
                await asyncio.sleep(0)
                pause_at = time.monotonic() + SLICE_S
                self._require_somebody(pause_at)
        return decoded

    async def _decode(self, inputs: SentInputs, budget: PixelBudget | None) -> Arrays:
        if not self._schema.is_slow(inputs):
            return self._schema.decode(inputs)
        budget = budget or PixelBudget(self._settings.max_pixels)
        threads = decoding_threads(self._settings.workers)
        return await asyncio.get_running_loop().run_in_executor(threads, self._schema.decode, inputs, budget)

    def _require_somebody(self, now: float) -> None:
        if self._is_gone():
            raise DeadlineExceededError("the client left before its inputs were decoded")
        if now > self._deadline:
            raise DeadlineExceededError(
                "the inputs could not be decoded within the deadline: send fewer rows at a time, or smaller files"
            )


@lru_cache  # the CPU limit is read from files
def decoding_threads(workers: int) -> ThreadPoolExecutor:
    """Returns the threads of one of so many workers, 0 for one on each core: as many as it has cores."""
    cores = usable_cores()
    return ThreadPoolExecutor(max(1, cores // (workers or cores)), thread_name_prefix="decode")


def make_rows(
    instances: Sequence[Row], decoded: Sequence[Any], deadline: float, options: RequestOptions = DEFAULTS
) -> Rows:
    """Joins instances with their decoded inputs.

    Args:
        instances: At least one.
        decoded: The arrays of each.
        deadline: ``time.monotonic()`` after which nobody waits for the answer.
        options: What the headers ask for.
    """
    if len(instances) == 1:
        arrays = {name: array[None] for name, array in decoded[0].items()}
    else:
        arrays = {name: np.stack([one[name] for one in decoded]) for name in decoded[0]}
    return Rows(
        [instance.client_id for instance in instances],
        [instance.key or None for instance in instances],
        arrays,
        [instance.inputs for instance in instances],
        deadline,
        options.segment,
        options.preview,
        [options.traceparent] * len(instances),
    )


def encode_response(predictions: list[Prediction], *, single: bool) -> bytes:
    """Encodes the answer: one prediction, or ``{"predictions": [...]}`` in the order of the instances."""
    return _encode(predictions[0] if single else {"predictions": predictions})


def server_timing(answers: Answers) -> bytes:
    """Returns the ``Server-Timing`` header: milliseconds of waiting for a batch, and of the batch."""
    return b"queue;dur=%.3f, model;dur=%.3f" % (answers.waited * 1000, answers.ran * 1000)


def read_json(body: bytes, most: int) -> tuple[Sequence[Row], bool]:
    """Takes JSON apart: one row, or ``instances``.

    Raises:
        MalformedBodyError: If it is not JSON.
        InvalidRequestError: If it is of another form, or holds more rows than it may.
    """
    decoded = decode_json(_decode_body, body)
    if decoded.instances is UNSET:
        missing = [name for name in ("client_id", "inputs") if getattr(decoded, name) is UNSET]
        if missing:
            raise invalid([FieldError(f"/{name}", "is required") for name in missing])
        return [decoded], True  # type: ignore[list-item]  # nothing of it is unset
    if not decoded.client_id is decoded.inputs is decoded.key is UNSET:
        raise invalid([FieldError("/instances", "stands alone: client_id, key and inputs go into each instance")])
    check_count(len(decoded.instances), most)
    return decoded.instances, False


def check_count(count: int, most: int) -> None:
    """Refuses a request of no rows, or of too many.

    Raises:
        InvalidRequestError: If it is one.
    """
    if not 1 <= count <= most:
        wanted = "one instance" if most == 1 else f"1 to {most} instances"
        raise invalid([FieldError("/instances", f"must hold {wanted}, not {count}")])


def _check_identifiers(instance: Row) -> list[FieldError]:
    if instance.client_id.isprintable() and (not instance.key or instance.key.isprintable()):
        return []
    return [
        FieldError(f"/{name}", f"must be 1 to {ID_LIMIT} printable characters")
        for name in ("client_id", "key")
        if not (getattr(instance, name) or "").isprintable()
    ]
