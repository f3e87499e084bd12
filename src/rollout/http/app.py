"""The HTTP API: predict as a bare ASGI function, everything else as Starlette endpoints."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rollout import metrics
from rollout.errors import RolloutError
from rollout.http.bodies import json_response
from rollout.http.clients import Clients
from rollout.http.explain import Explanations
from rollout.http.feedback import Feedback
from rollout.http.files import media_types_of, reader_of
from rollout.http.gates import Gates
from rollout.http.gateway import Gateway, media_type_of
from rollout.http.known import Known
from rollout.http.oip_http import OpenInference, is_infer
from rollout.http.openapi import Description
from rollout.http.predict import Read, decode_request, encode_response, server_timing, whether_gone
from rollout.http.problems import NO_MODEL, as_rollout_error, problem_response
from rollout.http.request_options import DEFAULTS, HEADERS, RequestOptions
from rollout.http.reviews import Reviews
from rollout.http.routes import JSON, NDJSON, Asgi, GatedRoute
from rollout.http.splits import Splits
from rollout.http.stream import PredictStream
from rollout.http.turn import LARGEST_BODY, Turn
from rollout.http.views import assignment_view, model_view
from rollout.inference.engine import Engine
from rollout.inference.rows import Answers, make_predictions
from rollout.inference.served_model import ServedModel

JSON_CONTENT = (b"content-type", JSON.encode())
PREDICT_PREFIX, PREDICT_SUFFIX = "/v1/models/", "/predict"


class Api(Gateway):
    """The routes under ``/v1`` and ``/v2``, and ``/openapi.json``. They answer 503 until ``open`` is called."""

    def __init__(self) -> None:
        super().__init__()
        self._draining = asyncio.Event()
        self._turn = Turn(self)
        self._description = Description()
        self._inference_protocol = OpenInference(self)
        self._predict_route = GatedRoute(
            "/v1/models/{model}/predict",
            Asgi(self.predict),
            role="app",
            methods=["POST"],
            takes=[JSON, NDJSON],
            takes_files=True,
            is_stream=True,
        )
        self.routes = [
            GatedRoute("/metrics", self._metrics, role=None),
            GatedRoute("/openapi.json", self._openapi, role="app"),
            GatedRoute("/v1/models", self._models, role="app"),
            GatedRoute("/v1/models/{model}", self._model, role="app"),
            self._predict_route,
            GatedRoute("/v1/models/{model}/assignments/{client_id:path}", self._assignment, role="app"),
            *Splits(self).routes,
            *Reviews(self).routes,
            *Feedback(self).routes,
            *Clients(self).routes,
            *Known(self).routes,
            *Gates(self).routes,
            *Explanations(self).routes,
            *self._inference_protocol.routes,
        ]

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

    def quick(self, scope: Scope, headers: Mapping[bytes, bytes]) -> ASGIApp | None:
        """Returns what answers a prediction whose body is read whole, if the headers let it pass.

        Everything else goes through the ``Dispatcher``, which says what is wrong.
        """
        path = scope["path"]
        if path.startswith(PREDICT_PREFIX) and path.endswith(PREDICT_SUFFIX):
            route = self._predict_route
        elif is_infer(path):
            route = self._inference_protocol.infer_route
        else:
            return None
        if b"content-encoding" in headers or (b"origin" in headers and self.settings.cors_origins):
            return None
        server = scope.get("server")
        try:
            self.check_host(scope, headers)
            self.authorize(headers, None if server is None else server[0], "app")
            takes = self._taken_whole(scope, headers) if route is self._predict_route else route.takes
            self.check_body(headers, takes)
        except RolloutError:
            return None
        scope["matched"] = route
        is_small = int(headers[b"content-length"]) <= LARGEST_BODY
        if route is self._predict_route and is_small and headers.keys().isdisjoint(HEADERS):
            scope["turn"] = self._turn
        return route.app

    def _taken_whole(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Collection[str]:
        """Returns the media types that a model takes whole; model and media type are noted for the turn."""
        scope["name"] = name = scope["path"][len(PREDICT_PREFIX) : -len(PREDICT_SUFFIX)]
        scope["media_type"] = media_type_of(headers)
        return (JSON,) if scope["media_type"] == JSON else media_types_of(self.engine.model(name).schema)

    async def predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/models/{model}/predict``, as an ASGI application."""
        started = time.perf_counter()
        model = None
        try:
            engine = self.engine
            model = engine.model(scope["path"][len(PREDICT_PREFIX) : -len(PREDICT_SUFFIX)])
            media_type, options = self._read_headers(scope)
            options = options._replace(traceparent=scope["traceparent"].decode())
            is_gone = whether_gone(scope)
            if media_type == NDJSON:
                stream = PredictStream(engine, model, self.settings, options, self._draining, is_gone)
                await stream.run(receive, send)
                return
            read = reader_of(scope, model.schema, media_type, self.settings.max_instances)
            body, timing, scope["answers"] = await self._answer(engine, model, read, options, receive, is_gone)
        except Exception as error:  # every failure becomes a problem document
            label = NO_MODEL if model is None else model.name
            ours = as_rollout_error(error)
            if model is not None:
                model.note_refused(ours)
            scope["problem"], scope["model"] = ours.type, label
            await problem_response(ours, label)(scope, receive, send)
            return
        headers = [JSON_CONTENT, (b"content-length", b"%d" % len(body)), (b"server-timing", timing)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        model.latency.observe(time.perf_counter() - started)

    def _read_headers(self, scope: Scope) -> tuple[str, RequestOptions]:
        """Returns the media type of the body, and what else the headers ask for."""
        media_type, options = JSON, DEFAULTS
        for name, value in scope["headers"]:
            if name == b"content-type":
                media_type = media_type_of({name: value})
            elif name in HEADERS:
                options = options.with_header(name, value)
        self.authorize_options(scope, options)
        return media_type, options

    async def _answer(
        self,
        engine: Engine,
        model: ServedModel,
        read: Read | None,
        options: RequestOptions,
        receive: Receive,
        is_gone: Callable[[], bool],
    ) -> tuple[bytes, bytes, Answers]:
        body = await self.read(receive)
        request = await decode_request(body, model.schema, self.settings, options, is_gone, read)
        answers = await engine.predict(model, request.rows)
        predictions = make_predictions(model.name, request.rows, answers)
        return encode_response(predictions, single=request.single), server_timing(answers), answers

    def _model_of(self, request: Request) -> ServedModel:
        return self.engine.model(request.path_params["model"])

    async def _metrics(self, _: Request) -> Response:
        shown = {*self.engine.models, NO_MODEL}
        return Response(await asyncio.to_thread(metrics.render, shown), media_type=CONTENT_TYPE_LATEST)

    async def _openapi(self, _: Request) -> Response:
        models = self.engine.models
        schemas = {name: model.schema for name, model in models.items()}
        heads = {name: model.task for name, model in models.items()}
        return Response(self._description.document(schemas, heads), media_type="application/json")

    async def _models(self, _: Request) -> Response:
        return json_response({"models": [model_view(model) for model in self.engine.models.values()]})

    async def _model(self, request: Request) -> Response:
        return json_response(model_view(self._model_of(request)))

    async def _assignment(self, request: Request) -> Response:
        segment = request.query_params.get("segment", "")
        split = self._model_of(request).split
        return json_response(assignment_view(split, request.path_params["client_id"], segment))
