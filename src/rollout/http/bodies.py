"""Bodies of JSON: reading one that is to be of a type, and answering with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rollout.errors import UnsupportedMediaTypeError
from rollout.http.gateway import Gateway
from rollout.http.predict import explain_body

T = TypeVar("T")


async def read_json(gateway: Gateway, request: Request, kind: type[T]) -> T:
    """Reads a body that is to be JSON of a type.

    Raises:
        UnsupportedMediaTypeError: If it says that it is something else.
        BodyTooLargeError: If it is larger than ``max_body_bytes``.
        MalformedBodyError: If it is not JSON.
        InvalidRequestError: If it is of another type; what is at fault is pointed at.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaTypeError("send JSON with the header 'Content-Type: application/json'")
    try:
        return msgspec.json.decode(await gateway.read(request.receive), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise explain_body(error) from None


def json_response(value: object, headers: Mapping[str, str] | None = None) -> Response:
    """Answers with JSON."""
    return Response(msgspec.json.encode(value), headers=headers, media_type="application/json")
