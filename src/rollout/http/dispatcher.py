"""The application in front of all others: which route a request is for, and whether it may go on to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from rollout.errors import MethodNotAllowedError, NotFoundError
from rollout.http.exchange import NO_SNIFFING, Exchange
from rollout.http.files import media_types_of
from rollout.http.gateway import Gateway, media_type_of
from rollout.http.problems import NO_MODEL, as_rollout_error, problem_response
from rollout.http.request_log import begin, end
from rollout.http.request_options import HEADERS
from rollout.http.routes import NDJSON, WITH_BODY, GatedRoute

# What a page of another origin may send and read, where ROLLOUT_CORS_ORIGINS allows it at all.
CORS_METHODS = ("GET", "POST", "PUT", "DELETE")
CORS_HEADERS = (
    "Authorization",
    "Content-Type",
    "Content-Encoding",
    "If-Match",
    "Inference-Header-Content-Length",
    "Traceparent",
    "X-Client-Id",
    "X-Key",
    *(name.decode() for name in HEADERS),
)
CORS_EXPOSED = (
    "Accept",
    "ETag",
    "Retry-After",
    "Server-Timing",
    "Traceparent",
    "Inference-Header-Content-Length",
)
CORS_PATHS = ("/v1/", "/v2", "/openapi.json")

logger = logging.getLogger(__name__)


class Dispatcher:
    """Answers requests by their routes; what no route is for does not exist.

    What the headers decide is decided here, before any of the body is read: host, token and role, model, media
    type, encoding and size. Each route says what it needs.

    Args:
        app: Behind us: its lifespan is ours.
        gateway: Decides.
        routes: Returns all routes, given the application behind us; the first that fits answers.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway, routes: Callable[[ASGIApp], Sequence[GatedRoute]]) -> None:
        self._app = app
        self._gateway = gateway
        self.routes = routes(app)
        self._cors: tuple[str, ASGIApp] = ("", self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes on what is none."""
        if scope["type"] == "lifespan":
            scope["state"]["gateway"] = self._gateway  # for the server's protocol, which asks it too
        if scope["type"] != "http" or "rollout" in scope:  # the latter has come through here before
            await self._app(scope, receive, send)
            return
        scope["rollout"] = True
        await self._with_cors(scope["path"])(scope, receive, send)

    def _with_cors(self, path: str) -> ASGIApp:
        origins = self._gateway.settings.cors_origins
        if not origins or not path.startswith(CORS_PATHS):
            return self._answer
        if self._cors[0] != origins:
            middleware = CORSMiddleware(
                self._answer,
                allow_origins=self._gateway.settings.origins(),
                allow_methods=CORS_METHODS,
                allow_headers=CORS_HEADERS,
                expose_headers=CORS_EXPOSED,
            )
            name, value = NO_SNIFFING
            middleware.preflight_headers[name.decode()] = value.decode()
            self._cors = origins, middleware
        return self._cors[1]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        waits = headers.get(b"expect", b"").lower() == b"100-continue"
        begin(scope, headers)
        trace = scope["traceparent"]
        exchange = Exchange(receive, send, traceparent=trace, has_body=has_body, waits_to_send=waits)
        route = None
        try:
            self._gateway.check_host(scope, headers)
            route = self._find(scope)
            if scope["method"] == "OPTIONS":
                response = Response(status_code=204, headers={"Allow": self._allowed(scope)})
                await response(scope, exchange.receive, exchange.send)
                return
            self._check(scope, headers, route, has_body=has_body)
            exchange = Exchange(
                receive,
                send,
                traceparent=trace,
                has_body=has_body,
                waits_to_send=waits,
                is_stream=route.is_stream and media_type_of(headers) == NDJSON,
                encoding=_encoding(headers) if scope["method"] in WITH_BODY else "",
            )
            await route.handle(scope, exchange.receive, exchange.send)
        except Exception as error:
            if exchange.has_begun:
                raise  # the server closes the connection: the client must not take this for a whole answer
            ours = as_rollout_error(error)
            scope["problem"], scope["model"] = ours.type, self._model(scope)
            if route is not None and route.problem is not None:
                response = route.problem(Request(scope), ours)
            else:
                response = problem_response(ours, self._model(scope), scope["path"])
            await response(scope, exchange.receive, exchange.send)
        finally:
            end(scope, exchange.status, every=self._gateway.settings.access_log)

    def _find(self, scope: Scope) -> GatedRoute:
        for route in self.routes:
            match, child = route.matches(scope)
            if match is Match.FULL or (match is Match.PARTIAL and scope["method"] == "OPTIONS"):
                scope.update(child)
                scope["matched"] = route
                return route
        path, allowed = scope["path"], self._allowed(scope)
        if allowed:
            raise MethodNotAllowedError(
                f"{path} takes {allowed}, not {scope['method']}", headers={"Allow": allowed}
            )
        raise NotFoundError(f"there is nothing at {path}; /openapi.json lists what there is")

    def _allowed(self, scope: Scope) -> str:
        methods = {
            method
            for route in self.routes
            if route.matches(scope)[0] is not Match.NONE
            for method in (route.methods or ())
        }
        return ", ".join(sorted(methods))

    def _check(self, scope: Scope, headers: dict[bytes, bytes], route: GatedRoute, *, has_body: bool) -> None:
        server = scope.get("server")
        takes = route.takes
        if route.role is not None:
            scope["bearer"] = self._gateway.authorize(headers, None if server is None else server[0], route.role)
            if "model" in scope["path_params"]:
                model = self._gateway.engine.model(scope["path_params"]["model"])
                if route.takes_files:
                    takes = takes.union(media_types_of(model.schema))
        if takes and scope["method"] in WITH_BODY and (has_body or b"content-type" in headers):
            self._gateway.check_body(headers, takes, is_stream=route.is_stream)

    def _model(self, scope: Scope) -> str:
        """Returns the model that a request names, if it is one of ours: it becomes a metric's label."""
        name: Any = scope.get("path_params", {}).get("model")
        return name if self._gateway.is_open and name in self._gateway.engine.models else NO_MODEL


def _encoding(headers: dict[bytes, bytes]) -> str:
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
    return "" if encoding == "identity" else encoding
