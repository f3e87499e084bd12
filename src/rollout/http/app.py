"""The HTTP application: predict as a bare ASGI function, everything else as Starlette routes."""

from __future__ import annotations

import time

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from rollout.config import Role, Settings
from rollout.errors import (
    BodyTooLargeError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    OverloadedError,
    RolloutError,
    UnsupportedMediaTypeError,
)
from rollout.http.auth import Auth
from rollout.http.openapi import build_openapi
from rollout.http.predict import decode_request, encode_response, parse_timeout, server_timing
from rollout.http.problems import NO_MODEL, as_rollout_error, on_error, problem_response
from rollout.http.views import REVIEW_FILTERS, assignment_view, model_view
from rollout.inference.engine import Engine, ServedModel
from rollout.inference.rows import make_predictions
from rollout.review.queue import list_items
from rollout.routing.splits import read_history

JSON_CONTENT = (b"content-type", b"application/json")
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
PREDICT_PREFIX, PREDICT_SUFFIX = "/v1/models/", "/predict"


class Api:
    """The routes under ``/v1`` and ``/openapi.json``. They answer 503 until ``open`` is called."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._auth: Auth | None = None
        self._settings = Settings()
        # Starlette runs a route's ASGI application as it is when it is not a function.
        predict = _Asgi(self)
        self.app = Starlette(
            routes=[
                Route("/openapi.json", self._openapi),
                Route("/v1/models", self._models),
                Route("/v1/models/{model}", self._model),
                Route("/v1/models/{model}/predict", predict, methods=["POST"]),
                Route("/v1/models/{model}/assignments/{client_id:path}", self._assignment),
                Route("/v1/models/{model}/split", self._split),
                Route("/v1/models/{model}/split/history", self._history),
                Route("/v1/models/{model}/reviews", self._reviews),
                Route("/v1/{path:path}", self._nothing_here, methods=METHODS),
            ],
            exception_handlers={RolloutError: on_error, Exception: on_error},
        )

    def open(self, engine: Engine, settings: Settings) -> None:
        """Starts answering."""
        self._engine, self._settings, self._auth = engine, settings, Auth(settings)

    def close(self) -> None:
        """Stops answering."""
        self._engine = None

    @property
    def is_open(self) -> bool:
        """Whether requests are answered."""
        return self._engine is not None

    def is_predict(self, path: str) -> bool:
        """Whether a path is that of ``predict``, for those who dispatch it without the routes."""
        return path.startswith(PREDICT_PREFIX) and path.endswith(PREDICT_SUFFIX)

    async def predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/models/{model}/predict``, as an ASGI application."""
        started = time.perf_counter()
        model = None
        try:
            engine = self._admit(scope, "app")
            model = engine.model(scope["path"][len(PREDICT_PREFIX) : -len(PREDICT_SUFFIX)])
            body, timing = await self._answer(engine, model, scope, receive)
        except Exception as error:  # every failure becomes a problem document
            label = NO_MODEL if model is None else model.name
            await problem_response(as_rollout_error(error), label)(scope, receive, send)
            return
        headers = [JSON_CONTENT, (b"server-timing", timing)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        model.latency.observe(time.perf_counter() - started)

    async def _answer(
        self, engine: Engine, model: ServedModel, scope: Scope, receive: Receive
    ) -> tuple[bytes, bytes]:
        timeout_ms = None
        is_json = False
        for name, value in scope["headers"]:
            if name == b"content-type":
                is_json = value.partition(b";")[0].strip().lower() == b"application/json"
            elif name == b"content-length":
                self._check_size(int(value))
            elif name == b"x-request-timeout":
                timeout_ms = parse_timeout(value)
        if not is_json:
            raise UnsupportedMediaTypeError("send JSON with the header 'Content-Type: application/json'")
        body = await self._read(receive)
        request = await decode_request(body, model.schema, self._settings, timeout_ms)
        answers = await engine.predict(model, request.rows)
        predictions = make_predictions(model.name, model.task, request.rows, answers)
        return encode_response(predictions, single=request.single), server_timing(answers)

    async def _read(self, receive: Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            chunks, size = [body], len(body)
            while message.get("more_body"):
                message = await receive()
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                self._check_size(size)
            body = b"".join(chunks)
        self._check_size(len(body))
        return body

    def _check_size(self, size: int) -> None:
        if size > self._settings.max_body_bytes:
            raise BodyTooLargeError(
                f"the body has {size:,} bytes; at most {self._settings.max_body_bytes:,} are taken: "
                "send fewer instances at a time"
            )

    def _admit(self, scope: Scope, role: Role) -> Engine:
        engine = self._running()
        assert self._auth is not None  # set together with the engine  # noqa: S101
        self._auth.require(scope, role)
        return engine

    def _running(self) -> Engine:
        if self._engine is None:
            raise OverloadedError("the service is starting or stopping", headers={"Retry-After": "1"})
        return self._engine

    def _admit_to_model(self, request: Request, role: Role) -> tuple[Engine, ServedModel]:
        engine = self._admit(request.scope, role)
        return engine, engine.model(request.path_params["model"])

    async def _openapi(self, request: Request) -> Response:
        engine = self._running()
        return _json(build_openapi({name: model.schema for name, model in engine.models.items()}))

    async def _models(self, request: Request) -> Response:
        engine = self._admit(request.scope, "app")
        return _json({"models": [model_view(model) for model in engine.models.values()]})

    async def _model(self, request: Request) -> Response:
        _, model = self._admit_to_model(request, "app")
        return _json(model_view(model))

    async def _assignment(self, request: Request) -> Response:
        _, model = self._admit_to_model(request, "app")
        return _json(assignment_view(model.split, request.path_params["client_id"]))

    async def _split(self, request: Request) -> Response:
        _, model = self._admit_to_model(request, "admin")
        return _json(model.split, {"ETag": f'"{model.split.revision}"'})

    async def _history(self, request: Request) -> Response:
        engine, model = self._admit_to_model(request, "admin")
        return _json({"history": await read_history(engine.redis, model.name)})

    async def _reviews(self, request: Request) -> Response:
        engine, model = self._admit_to_model(request, "reviewer")
        filters = dict(request.query_params)
        limit = filters.pop("limit", "100")
        since = filters.pop("since", None)
        unknown = sorted(filters.keys() - REVIEW_FILTERS)
        if unknown:
            raise InvalidRequestError(
                f"there is no filter {unknown[0]!r}; there are limit, since, {', '.join(sorted(REVIEW_FILTERS))}"
            )
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
            raise InvalidRequestError("limit must be a whole number from 1 to 1000")
        reviews = []
        try:
            async for item in list_items(engine.redis, model.name, filters, since):
                reviews.append(item)
                if len(reviews) == int(limit):
                    break
        except ValueError:
            raise InvalidRequestError("since must be a time in ISO 8601, such as 2026-11-22T10:00:00Z") from None
        return _json({"reviews": reviews})

    async def _nothing_here(self, request: Request) -> Response:
        path = request.url.path
        for route in self.app.routes[:-1]:
            if isinstance(route, Route) and route.matches(request.scope)[0] is Match.PARTIAL:
                allowed = ", ".join(sorted(route.methods or ()))
                raise MethodNotAllowedError(
                    f"{path} takes {allowed}, not {request.method}", headers={"Allow": allowed}
                )
        raise NotFoundError(f"there is nothing at {path}; /openapi.json lists what there is")


class _Asgi:
    def __init__(self, api: Api) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._api.predict(scope, receive, send)


def _json(value: object, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), headers=headers, media_type="application/json")
