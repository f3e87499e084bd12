"""Bodies of JSON: decoding one that is to be of a type, saying what is wrong with it, and answering with one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from rollout.bundle.codec import split_location
from rollout.errors import FieldError, InvalidRequestError, MalformedBodyError
from rollout.http.gateway import BOM, Gateway

ID_LIMIT = 128
# An answer says no more about what is wrong: so many faults, of so many characters each.
MOST_ERRORS = 1024
LONGEST_TEXT = 300
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
    return decode_json(msgspec.json.Decoder(kind).decode, await gateway.read(request.receive))


def decode_json(decode: Callable[[bytes], T], body: bytes) -> T:
    """Decodes JSON that somebody sent.

    Args:
        decode: Of a ``msgspec.json.Decoder``.
        body: The JSON; a byte-order mark may stand before it.

    Raises:
        MalformedBodyError: If it is not JSON, or nested more deeply than can be read.
        InvalidRequestError: If it is of another type; what is at fault is pointed at.
    """
    try:
        return decode(body.removeprefix(BOM))
    except msgspec.ValidationError as error:
        raise invalid([_explain(error)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBodyError(f"{error}; send one JSON object, in UTF-8") from None
    except RecursionError:
        raise MalformedBodyError(TOO_DEEP) from None


def json_response(value: object, headers: Mapping[str, str] | None = None) -> Response:
    """Answers with JSON."""
    return Response(msgspec.json.encode(value), headers=headers, media_type="application/json")


def invalid(errors: list[FieldError]) -> InvalidRequestError:
    """Returns the error that names these faults: the first of them, and of long texts the beginning."""
    named = [FieldError(_short(pointer), _short(detail)) for pointer, detail in errors[:MOST_ERRORS]]
    shown = "; ".join(f"{pointer or 'the body'} {detail}" for pointer, detail in named[:3])
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    return InvalidRequestError(shown + more, errors=named)


def is_count(text: str) -> bool:
    """Whether a text is a whole number that one may count to; Python refuses to read a very long one."""
    return text.isascii() and text.isdecimal() and len(text) < 16


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _explain(error: msgspec.ValidationError) -> FieldError:
    detail, pointer = split_location(error)
    if pointer.endswith(("/client_id", "/key")):
        detail = f"must be 1 to {ID_LIMIT} printable characters"
    elif "missing required field" in detail:
        pointer, detail = f"{pointer}/{detail.split()[-1]}", "is required"
    elif pointer.endswith("/inputs"):
        detail = "must be an object that holds the model's inputs by name"
    return FieldError(pointer, detail)
