"""Bodies of JSON: decoding one that is to be of a type, saying what is wrong with it, and answering with one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from rollout.bundle.codec import located, require_quick, split_location
from rollout.errors import NO_JSON, FieldError, MalformedBodyError, invalid, step_to
from rollout.http.gateway import BOM, Gateway
from rollout.inference.rows import ID_LIMIT

TOO_DEEP = "the JSON is nested too deeply: send at most a few hundred levels"

Identifier = Annotated[str, Meta(min_length=1, max_length=ID_LIMIT)]
T = TypeVar("T")


async def read_json(gateway: Gateway, request: Request, kind: type[T]) -> T:
    """Reads a body that is to be JSON of a type.

    Raises:
        BodyTooLargeError: If it is larger than ``max_body_bytes``.
        MalformedBodyError: If it is not JSON.
        InvalidRequestError: If it is of another type; what is at fault is pointed at.
    """
    body = await gateway.read(request.receive)
    try:
        require_quick(body)
    except ValueError as error:
        raise MalformedBodyError(f"{error}: send fewer at a time") from None
    return decode_json(msgspec.json.Decoder(kind).decode, body)


def decode_json(decode: Callable[[bytes], T], body: bytes) -> T:
    """Decodes JSON that somebody sent.

    Args:
        decode: Of a ``msgspec.json.Decoder``.
        body: The JSON; a byte-order mark may stand before it.

    Raises:
        MalformedBodyError: If it is not JSON, or nested more deeply than can be read.
        InvalidRequestError: If it is of another type; what is at fault is pointed at.
    """
    body = body.removeprefix(BOM)
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        pointer, detail = _explain(error)
        raise invalid([FieldError(_located(pointer, detail, body), detail)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBodyError(f"{error}; send one JSON object, in UTF-8") from None
    except RecursionError:
        raise MalformedBodyError(TOO_DEEP) from None


def json_response(value: object, headers: Mapping[str, str] | None = None) -> Response:
    """Answers with JSON."""
    return Response(msgspec.json.encode(value), headers=headers, media_type="application/json")


def is_count(text: str) -> bool:
    """Whether a text is a whole number that one may count to; Python refuses to read a very long one."""
    return text.isascii() and text.isdecimal() and len(text) < 16


def _located(pointer: str, detail: str, body: bytes) -> str:
    try:
        return located(pointer, detail, body)
    except NO_JSON:  # behind what was at fault
        return pointer


def _explain(error: msgspec.ValidationError) -> FieldError:
    detail, pointer = split_location(error)
    if pointer.endswith(("/client_id", "/key")):
        detail = f"must be 1 to {ID_LIMIT} printable characters"
    elif "missing required field" in detail:
        pointer, detail = f"{pointer}{step_to(detail.split()[-1])}", "is required"
    elif pointer.endswith("/inputs"):
        detail = "must be an object that holds the model's inputs by name"
    return FieldError(pointer, detail)
