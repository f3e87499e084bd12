"""The HTTP application: predict as a bare ASGI function, everything else as Starlette routes."""

from __future__ import annotations

import asyncio
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rollout.config import Role
from rollout.errors import (
    MethodNotAllowedError,
    NotFoundError,
    RolloutError,
    UnsupportedMediaTypeError,
)
from rollout.http.bodies import json_response
from rollout.http.clients import Clients
from rollout.http.feedback import Feedback
from rollout.http.gateway import Asgi, Gateway
from rollout.http.oip_http import OpenInference, is_infer
from rollout.http.openapi import build_openapi
from rollout.http.predict import decode_request, encode_response, server_timing
from rollout.http.problems import NO_MODEL, as_rollout_error, on_error, problem_response
from rollout.http.request_options import DEFAULTS, HEADERS, RequestOptions
from rollout.http.reviews import Reviews
from rollout.http.splits import Splits
from rollout.http.stream import MEDIA_TYPE as LINES
from rollout.http.stream import PredictStream
from rollout.http.verdict import Verdicts
from rollout.http.views import assignment_view, model_view
from rollout.inference.engine import Engine
from rollout.inference.rows import make_predictions
from rollout.inference.served_model import ServedModel

JSON = b"application/json"
JSON_CONTENT = (b"content-type", JSON)
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
PREDICT_PREFIX, PREDICT_SUFFIX = "/v1/models/", "/predict"


class Api(Gateway):
    """The routes under ``/v1`` and ``/v2``, and ``/openapi.json``. They answer 503 until ``open`` is called."""

    def __init__(self) -> None:
        super().__init__()
        self._draining = asyncio.Event()
        self._inference_protocol = OpenInference(self)
        self.app = Starlette(
            routes=[
                Route("/openapi.json", self._openapi),
                Route("/v1/models", self._models),
                Route("/v1/models/{model}", self._model),
                Route("/v1/models/{model}/predict", Asgi(self.predict), methods=["POST"]),
                Route("/v1/models/{model}/assignments/{client_id:path}", self._assignment),
                *Splits(self).routes,
                *Reviews(self).routes,
                *Feedback(self).routes,
                *Clients(self).routes,
                *Verdicts(self).routes,
                *self._inference_protocol.routes,
                *(Route(f"/{root}/{{path:path}}", self._nothing_here, methods=METHODS) for root in ("v1", "v2")),
            ],
            exception_handlers={RolloutError: on_error, Exception: on_error},
        )

    def drain(self) -> None:
        """Ends the streams that are open, so that callers send elsewhere what has no answer yet."""
        self._draining.set()

    @property
    def is_draining(self) -> bool:
        """Whether the worker is about to stop."""
        return self._draining.is_set()

    @property
    def is_ready(self) -> bool:
        """Whether new requests are welcome."""
        return self.is_open and not self.is_draining

    def hot(self, path: str) -> ASGIApp | None:
        """Returns what answers ``POST`` at a path without the routes, for those who dispatch it themselves."""
        if path.startswith(PREDICT_PREFIX) and path.endswith(PREDICT_SUFFIX):
            return self.predict
        return self._inference_protocol.infer if is_infer(path) else None

    async def predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/models/{model}/predict``, as an ASGI application."""
        started = time.perf_counter()
        model = None
        try:
            engine = self.authorize(scope, "app")
            model = engine.model(scope["path"][len(PREDICT_PREFIX) : -len(PREDICT_SUFFIX)])
            media_type, options = self._read_headers(scope)
            if media_type == LINES:
                await PredictStream(engine, model, self.settings, options, self._draining).run(receive, send)
                return
            body, timing = await self._answer(engine, model, options, receive)
        except Exception as error:  # every failure becomes a problem document
            label = NO_MODEL if model is None else model.name
            await problem_response(as_rollout_error(error), label)(scope, receive, send)
            return
        headers = [JSON_CONTENT, (b"content-length", b"%d" % len(body)), (b"server-timing", timing)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        model.latency.observe(time.perf_counter() - started)

    def _read_headers(self, scope: Scope) -> tuple[bytes, RequestOptions]:
        """Returns the media type of the body, and what else the headers ask for."""
        media_type, options, size = b"", DEFAULTS, 0
        for name, value in scope["headers"]:
            if name == b"content-type":
                media_type = value.partition(b";")[0].strip().lower()
            elif name == b"content-length":
                size = int(value)
            elif name in HEADERS:
                options = options.with_header(name, value)
        self.authorize_options(scope, options)
        if media_type == JSON:
            self.check_size(size)
        elif media_type != LINES:
            raise UnsupportedMediaTypeError(
                "send JSON with the header 'Content-Type: application/json', or one instance a line with "
                f"'Content-Type: {LINES.decode()}'"
            )
        return media_type, options

    async def _answer(
        self, engine: Engine, model: ServedModel, options: RequestOptions, receive: Receive
    ) -> tuple[bytes, bytes]:
        body = await self.read(receive)
        request = await decode_request(body, model.schema, self.settings, options)
        answers = await engine.predict(model, request.rows)
        predictions = make_predictions(model.name, request.rows, answers)
        return encode_response(predictions, single=request.single), server_timing(answers)

    def _authorize_to_model(self, request: Request, role: Role) -> tuple[Engine, ServedModel]:
        engine = self.authorize(request.scope, role)
        return engine, engine.model(request.path_params["model"])

    async def _openapi(self, request: Request) -> Response:
        engine = self.engine
        return json_response(build_openapi({name: model.schema for name, model in engine.models.items()}))

    async def _models(self, request: Request) -> Response:
        engine = self.authorize(request.scope, "app")
        return json_response({"models": [model_view(model) for model in engine.models.values()]})

    async def _model(self, request: Request) -> Response:
        _, model = self._authorize_to_model(request, "app")
        return json_response(model_view(model))

    async def _assignment(self, request: Request) -> Response:
        _, model = self._authorize_to_model(request, "app")
        segment = request.query_params.get("segment", "")
        return json_response(assignment_view(model.split, request.path_params["client_id"], segment))

    async def _nothing_here(self, request: Request) -> Response:
        path = request.url.path
        for route in self.app.routes:
            if isinstance(route, Route) and route.matches(request.scope)[0] is Match.PARTIAL:
                allowed = ", ".join(sorted(route.methods or ()))
                raise MethodNotAllowedError(
                    f"{path} takes {allowed}, not {request.method}", headers={"Allow": allowed}
                )
        raise NotFoundError(f"there is nothing at {path}; /openapi.json lists what there is")
