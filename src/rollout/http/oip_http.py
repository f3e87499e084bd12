"""The Open Inference Protocol over HTTP: JSON, and binary tensors after the JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rollout.errors import FieldError, MalformedBodyError, invalid
from rollout.http.bodies import TOO_DEEP
from rollout.http.gateway import BOM, Gateway
from rollout.http.oip import Inferred, find_version, infer, model_metadata, server_metadata
from rollout.http.oip_messages import InferredTensor, InferRequest, InferResponse, explain
from rollout.http.predict import server_timing
from rollout.http.problems import NO_MODEL, as_rollout_error, problem_response
from rollout.http.request_options import DEFAULTS, HEADERS
from rollout.http.routes import JSON, OCTETS, UNSAID, Asgi, GatedRoute
from rollout.http.tensors import Content
from rollout.inference.engine import Engine
from rollout.inference.served_model import ServedModel

MODELS, VERSIONS, INFER = "/v2/models/", "/versions/", "/infer"
MODEL = "/v2/models/{model}"
VERSION = "/v2/models/{model}/versions/{version}"
# Triton's client says nothing or octets. What browsers send for a page elsewhere without asking is not taken.
TAKES = (JSON, OCTETS, UNSAID)
JSON_LENGTH = b"inference-header-content-length"

_decode = msgspec.json.Decoder(InferRequest).decode
_encode = msgspec.json.Encoder().encode


def is_infer(path: str) -> bool:
    """Whether a path is one of ``infer``, for those who dispatch it without the routes."""
    return path.startswith(MODELS) and path.endswith(INFER)


class OpenInference:
    """The routes under ``/v2``.

    Args:
        gateway: Lets requests through to the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        infer = [
            GatedRoute(f"{path}{INFER}", Asgi(self.infer), role="app", methods=["POST"], takes=TAKES)
            for path in (MODEL, VERSION)
        ]
        self.infer_route = infer[0]
        self.routes = [
            GatedRoute("/v2", self._server, role="app"),
            GatedRoute("/v2/health/live", self._live, role=None),
            GatedRoute("/v2/health/ready", self._ready, role=None),
            *(GatedRoute(path, self._model, role="app") for path in (MODEL, VERSION)),
            *(GatedRoute(f"{path}/ready", self._model_ready, role="app") for path in (MODEL, VERSION)),
            *infer,
        ]

    async def infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v2/models/{model}[/versions/{version}]/infer``, as an ASGI application."""
        started = time.perf_counter()
        model = None
        try:
            engine = self._gateway.engine
            name, _, version = scope["path"][len(MODELS) : -len(INFER)].partition(VERSIONS)
            model = engine.model(name)
            headers, body = await self._answer(engine, model, version, scope, receive)
        except Exception as error:  # every failure becomes a problem document
            label = NO_MODEL if model is None else model.name
            ours = as_rollout_error(error)
            scope["problem"], scope["model"] = ours.type, label
            await problem_response(ours, label, scope["path"])(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        model.latency.observe(time.perf_counter() - started)

    async def _answer(
        self, engine: Engine, model: ServedModel, version: str, scope: Scope, receive: Receive
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        settings = self._gateway.settings
        options, client_id, json_length = DEFAULTS, None, None
        for name, value in scope["headers"]:
            if name == JSON_LENGTH:
                json_length = value
            elif name == b"x-client-id":
                client_id = value.decode("utf-8", "surrogateescape")  # what is no UTF-8 is not printable
            elif name in HEADERS:
                options = options.with_header(name, value)
        self._gateway.authorize_options(scope, options)
        options = options._replace(traceparent=scope["traceparent"].decode())
        deadline = time.monotonic() + (options.timeout_ms or settings.timeout_ms) / 1000
        body = await self._gateway.read(receive)
        request, contents = decode_body(body, json_length)
        done = await infer(engine, model, version, request, contents, client_id, settings, deadline, options)
        scope["answers"] = done.answers
        return encode_body(request, done, model.name)

    async def _server(self, _: Request) -> Response:
        return _json(server_metadata())

    async def _live(self, _: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, _: Request) -> Response:
        is_ready = self._gateway.is_ready
        return _json({"ready": is_ready}, 200 if is_ready else 503)

    async def _model(self, request: Request) -> Response:
        return _json(model_metadata(self._model_of(request), request.path_params.get("version", "")))

    async def _model_ready(self, request: Request) -> Response:
        model = self._model_of(request)
        find_version(model, request.path_params.get("version", ""))
        return _json({"name": model.name, "ready": True})

    def _model_of(self, request: Request) -> ServedModel:
        return self._gateway.engine.model(request.path_params["model"])


def decode_body(body: bytes, json_length: bytes | None) -> tuple[InferRequest, list[Content]]:
    """Takes a body apart: the JSON, and what each input holds.

    Args:
        body: JSON, followed by the binary data of those inputs that announce some.
        json_length: The header ``Inference-Header-Content-Length``; without it everything is JSON.

    Raises:
        MalformedBodyError: If the JSON is none.
        InvalidRequestError: If it is no request, or the lengths do not add up to the body.
    """
    everything = memoryview(body)
    at = _parse_length(json_length, len(body))
    start = len(BOM) if body.startswith(BOM) else 0
    try:
        request = _decode(everything[start:at])
    except msgspec.ValidationError as error:
        raise explain(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBodyError(
            f"{error}; send one JSON object, with its length in Inference-Header-Content-Length where binary "
            "data follow"
        ) from None
    except RecursionError:
        raise MalformedBodyError(TOO_DEEP) from None
    contents: list[Content] = []
    for index, tensor in enumerate(request.inputs):
        size = tensor.parameters.binary_data_size
        if (size is None) == (not tensor.data):
            raise invalid(
                [FieldError(f"/inputs/{index}", "must have either data or the parameter binary_data_size")]
            )
        contents.append(tensor.data if size is None else everything[at : at + size])
        at += size or 0
    if at != len(body):
        raise invalid(
            [FieldError("", f"has {len(body)} bytes; its JSON and the announced binary data make {at}")]
        )
    return request, contents


def encode_body(request: InferRequest, done: Inferred, model: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Puts an answer together: headers and body, with the outputs binary that were wanted so."""
    tensors = []
    chunks = [b""]
    for output, is_binary in zip(done.outputs, _which_binary(request, len(done.outputs)), strict=True):
        tensor = InferredTensor(output.name, output.datatype, output.shape)
        if is_binary:
            chunks.append(output.to_binary())
            tensor.parameters = {"binary_data_size": len(chunks[-1])}
        else:
            tensor.data = output.to_list()
        tensors.append(tensor)
    chunks[0] = _encode(InferResponse(model, done.version, request.id or UNSET, done.said, tensors))
    body = b"".join(chunks)
    headers = [(b"content-length", b"%d" % len(body)), (b"server-timing", server_timing(done.answers))]
    if len(chunks) == 1:
        headers.append((b"content-type", b"application/json"))
    else:
        headers.append((b"content-type", b"application/octet-stream"))
        headers.append((JSON_LENGTH, b"%d" % len(chunks[0])))
    return headers, body


def _which_binary(request: InferRequest, outputs: int) -> Sequence[bool]:
    default = request.parameters.binary_data_output
    if not request.outputs:
        return [default] * outputs
    wanted = [output.parameters.binary_data for output in request.outputs]
    return [default if one is None else one for one in wanted]


def _parse_length(header: bytes | None, size: int) -> int:
    if header is None:
        return size
    if header.isdigit() and len(header) < 20 and int(header) <= size:
        return int(header)
    raise invalid(
        [FieldError("", f"has {size} bytes; Inference-Header-Content-Length must be a whole number up to that")]
    )


def _json(value: object, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")
