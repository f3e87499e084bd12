"""The Open Inference Protocol over gRPC. Importing this takes the extra ``grpc``."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import msgspec

from rollout import metrics
from rollout.config import Role, Settings
from rollout.errors import (
    ConfigError,
    DeadlineExceededError,
    FieldError,
    MalformedBodyError,
    MalformedRequestError,
    RolloutError,
    UnknownModelError,
    invalid,
)
from rollout.http.gateway import Gateway
from rollout.http.oip import check_counts, find_version, infer, model_metadata, server_metadata
from rollout.http.oip_messages import InferRequest, explain
from rollout.http.problems import NO_MODEL, as_rollout_error
from rollout.http.request_log import begin, end
from rollout.http.request_options import DEFAULTS
from rollout.http.tensors import Content

# Between fork and exec gRPC's own handlers start threads, which crash one process in sixty while calls come in
# (grpc/grpc#43055). Whatever a worker starts becomes another program at once, and needs none of that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

try:
    import grpc
    from google.protobuf.message import DecodeError
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc import service_pb2_grpc as stubs
except (ImportError, RuntimeError) as error:  # tritonclient makes the one into the other
    raise ConfigError("ROLLOUT_GRPC_PORT takes an extra: pip install 'rollout[grpc]'") from error

# How long requests in flight may take when the service stops.
GRACE_S = 10.0
# A connection is told to end after so long, and ends with its calls: who reads no answer holds none for good.
# Clients open another, and so come to replicas that were added.
AGE_S = 300.0
# As long as a call may take at most.
END_WITHIN_S = 600.0
STATUSES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    421: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    428: grpc.StatusCode.FAILED_PRECONDITION,
    431: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
SERVICE = f"/{messages.DESCRIPTOR.services_by_name['GRPCInferenceService'].full_name}"
# Who may call what; ``None`` for everybody.
ROLES: Mapping[str, Role | None] = {
    "ServerLive": None,
    "ServerReady": None,
    "ServerMetadata": "app",
    "ModelReady": "app",
    "ModelMetadata": "app",
    "ModelInfer": "app",
}
# More than there are, so that one too many is named.
MOST_PARAMETERS = 16
# Of a status, which clients take together with the trailers up to 8 KiB, each byte as up to three.
MOST_DETAIL_BYTES = 2000
# A call's deadline comes with the call.
METADATA = {"x-client-segment", "x-rollout-arm"}
CONTENTS = {
    "UINT8": "uint_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "BYTES": "bytes_contents",
}

logger = logging.getLogger(__name__)
# What is found out about the call that a task answers; the context of grpc takes no attributes.
_call: ContextVar[dict[str, Any]] = ContextVar("call")

Method = Callable[[Any, Any], Awaitable[Any]]


def status_of(error: RolloutError) -> grpc.StatusCode:
    """Returns the gRPC status that says what the HTTP status of an error says."""
    if isinstance(error, DeadlineExceededError):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return STATUSES.get(error.status, grpc.StatusCode.UNKNOWN)


async def start(gateway: Gateway, settings: Settings) -> Callable[[], Awaitable[None]]:
    """Starts answering on ``grpc_port``, which the workers share.

    Args:
        gateway: Lets requests through to the engine.
        settings: Address and limits.

    Returns:
        What stops it again: it answers what is in flight first.

    Raises:
        ConfigError: If the port cannot be listened on.
    """
    server = grpc.aio.server(
        interceptors=[Calls(gateway)],
        options=[
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", settings.max_connections),
            ("grpc.max_connection_idle_ms", round(settings.idle_timeout_s * 1000)),
            ("grpc.max_connection_age_ms", round(AGE_S * 1000)),
            ("grpc.max_connection_age_grace_ms", round(END_WITHIN_S * 1000)),
        ],
        maximum_concurrent_rpcs=settings.max_connections,
    )
    stubs.add_GRPCInferenceServiceServicer_to_server(Servicer(gateway), server)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {host}:{settings.grpc_port} for gRPC: {error}") from None
    await server.start()
    logger.info("gRPC listens on %s:%d", host, settings.grpc_port)
    return functools.partial(server.stop, GRACE_S)


class _Method(NamedTuple):
    """A method of gRPC, as the log calls it."""

    path: str


class Calls(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Stands in front of all methods: who may call them, the trace and the line of a call, failures as a status.

    A call that may not pass is refused without its message being read, and what is open to everybody answers so;
    a method without a role in ``ROLES`` does not exist.

    Args:
        gateway: Knows the tokens.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Returns what answers a call."""
        service, _, name = details.method.rpartition("/")
        if service != SERVICE or name not in ROLES:
            return None  # grpc says that it is not implemented
        handler = await continuation(details)
        metadata = {key.encode(): _as_bytes(value) for key, value in details.invocation_metadata}
        try:
            if sum(key == "authorization" for key, _ in details.invocation_metadata) > 1:
                raise MalformedRequestError("send authorization once at most")
            if ROLES[name] is not None:
                self._gateway.authorize(metadata, self._gateway.settings.host, ROLES[name])
        except RolloutError as error:
            refused = error.alone()

            async def refuse(_: Any, context: Any) -> Any:
                return await self._answer(name, metadata, handler.unary_unary, refused, context)

            # As a stream of requests, of which none is read.
            return grpc.stream_unary_rpc_method_handler(refuse)

        async def answer_unread(_: Any, context: Any) -> Any:
            return await self._answer(name, metadata, handler.unary_unary, None, context)

        if ROLES[name] is None:  # nobody fills the memory with messages that say nothing
            return grpc.stream_unary_rpc_method_handler(answer_unread, None, handler.response_serializer)

        def decode(data: bytes) -> Any:
            try:
                return handler.request_deserializer(data)
            except DecodeError as error:  # which grpc takes for a fault of ours
                return MalformedBodyError(f"the message is not what this method takes: {error}")

        answer = functools.partial(self._answer, name, metadata, handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(answer, decode, handler.response_serializer)

    async def _answer(
        self, name: str, metadata: dict[bytes, bytes], method: Method, request: Any, context: Any
    ) -> Any:
        """Answers a call; ``request`` is its message if it was read, or what is wrong with it."""
        call: dict[str, Any] = {"method": "gRPC", "matched": _Method(name), "headers": metadata.items()}
        begin(call, metadata)
        traceparent = call["traceparent"].decode()
        _call.set(call)
        context.set_trailing_metadata((("traceparent", traceparent),))
        try:
            if isinstance(request, RolloutError):
                raise request
            answer = await method(request, context)
        except Exception as error:
            ours = as_rollout_error(error)
            model = self._label(request)
            del request  # which the error that `abort` raises would keep, as it keeps this frame
            call |= {"problem": ours.type, "model": model}
            end(call, ours.status, every=False)
        else:
            end(call, 200, every=self._gateway.settings.access_log)
            return answer
        metrics.ERRORS.labels(model, ours.type).inc()
        trailing = ((key.lower(), value) for key, value in ours.headers.items())
        # What is given here replaces what was set before.
        detail = ours.detail.encode(errors="replace")[:MOST_DETAIL_BYTES].decode(errors="ignore")
        return await context.abort(status_of(ours), detail, (*trailing, ("traceparent", traceparent)))

    def _label(self, request: Any) -> str:
        """Returns the model that a call names, if it is one of ours: it becomes a metric's label."""
        name = getattr(request, "model_name", getattr(request, "name", NO_MODEL))
        return name if self._gateway.is_open and name in self._gateway.engine.models else NO_MODEL


class Servicer(stubs.GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated, without types
    """Answers calls; what it does not have is UNIMPLEMENTED, ``ModelStreamInfer`` too.

    Args:
        gateway: Lets requests through to the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802  the protocol's name
        """Says that there is a server."""
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Says whether everything is warm."""
        return messages.ServerReadyResponse(ready=self._gateway.is_ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Says what this server is."""
        return messages.ServerMetadataResponse(**server_metadata())

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Says whether a version of a model is in memory."""
        engine = self._gateway.engine
        try:
            find_version(engine.model(request.name), request.version)
        except UnknownModelError:
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Says what a model takes and gives."""
        model = self._gateway.engine.model(request.name)
        return messages.ModelMetadataResponse(**model_metadata(model, request.version))

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers a request."""
        started = time.perf_counter()
        model = self._gateway.engine.model(request.model_name)
        settings = self._gateway.settings
        remaining = context.time_remaining()
        deadline = time.monotonic() + (settings.timeout_ms / 1000 if remaining is None else remaining)
        check_counts(model, len(request.inputs), len(request.outputs))
        message = _to_request(request)
        metadata = dict(context.invocation_metadata())
        call = _call.get()
        headers = DEFAULTS._replace(traceparent=call["traceparent"].decode())
        for name in METADATA & metadata.keys():
            headers = headers.with_header(name.encode(), _as_bytes(metadata[name]))
        self._gateway.authorize_options(self._scope(context), headers)
        done = await infer(
            self._gateway.engine,
            model,
            request.model_version,
            message,
            _contents(request),
            metadata.get("x-client-id"),
            settings,
            deadline,
            headers,
        )
        call |= {"model": model.name, "answers": done.answers}
        model.latency.observe(time.perf_counter() - started)
        return messages.ModelInferResponse(
            model_name=model.name,
            model_version=done.version,
            id=message.id,
            parameters={
                name: messages.InferParameter(
                    **{"int64_param" if isinstance(value, int) else "string_param": value}
                )
                for name, value in done.said.items()
            },
            outputs=[
                {"name": output.name, "datatype": output.datatype, "shape": output.shape}
                for output in done.outputs
            ],
            raw_output_contents=[output.to_binary() for output in done.outputs],
        )

    def _scope(self, context: Any) -> dict[str, Any]:
        headers = [(name.encode(), _as_bytes(value)) for name, value in context.invocation_metadata()]
        return {"headers": headers, "server": (self._gateway.settings.host, None)}


def _to_request(request: Any) -> InferRequest:
    message = {
        "id": request.id,
        "parameters": _parameters(request.parameters),
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": _parameters(tensor.parameters),
            }
            for tensor in request.inputs
        ],
        "outputs": [
            {"name": output.name, "parameters": _parameters(output.parameters)} for output in request.outputs
        ],
    }
    try:
        return msgspec.convert(message, InferRequest)
    except msgspec.ValidationError as error:
        raise explain(error) from None


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    if len(parameters) > MOST_PARAMETERS:
        raise invalid(
            [FieldError("/parameters", f"holds {len(parameters):,}; at most {MOST_PARAMETERS} are taken")]
        )
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in parameters.items())
    return {name: choice and getattr(value, choice) for name, value, choice in chosen}


def _contents(request: Any) -> list[Content]:
    if request.raw_input_contents:
        if len(request.raw_input_contents) != len(request.inputs):
            raise invalid(
                [FieldError("/raw_input_contents", f"must hold {len(request.inputs)} items, one for each input")]
            )
        return [memoryview(raw) for raw in request.raw_input_contents]
    return [
        getattr(tensor.contents, CONTENTS.get(tensor.datatype, "bytes_contents")) for tensor in request.inputs
    ]


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
