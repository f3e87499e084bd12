"""The BentoML service: lifecycle, native API, and the HTTP routes mounted.

``bentoml serve service.service:Predictor`` runs it as it is; ``rollout serve`` runs it through ``service.front``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

# BentoML reports usage to its makers unless told otherwise.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
import msgspec
from starlette.types import ASGIApp
from uvicorn.config import HTTP_PROTOCOLS

from rollout import logs
from rollout.config import load_settings
from rollout.embedded import running_redis
from rollout.errors import RolloutError
from rollout.home import keep_private, prepare_home
from rollout.http.app import Api
from rollout.http.dispatcher import Dispatcher
from rollout.http.predict import decode_request, whether_gone
from rollout.http.problems import as_rollout_error, problem_response
from rollout.http.request_options import DEFAULTS, HEADERS
from rollout.http.routes import GatedRoute
from rollout.inference.engine import Engine
from rollout.inference.rows import make_predictions
from rollout.store import client_of
from rollout.telemetry.setup import start as start_telemetry
from service.bento import bento_routes
from service.console import console_routes

GC_THRESHOLDS = (50_000, 20, 100)

# BentoML's server has no setting for it: both servers read HTTP by the same protocol.
HTTP_PROTOCOLS["auto"] = "rollout.http.protocol:PredictProtocol"

api = Api()
logger = logging.getLogger("rollout.service")


def all_routes(bentoml_app: ASGIApp) -> list[GatedRoute]:
    """Returns every route that there is, in the order in which they are tried."""
    return [*api.routes, *console_routes(api), *bento_routes(api, bentoml_app)]


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Has SIGTERM end this process at once: nobody is answered yet, and a model may never end loading."""
    stop = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, stop)


def _drain_at_sigterm(grace_s: float) -> None:
    """Goes on serving for a while after SIGTERM, not ready any more, before the server's own handler stops it.

    Whoever sends the requests needs that long to learn that this replica is going.
    """
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)
    if not callable(stop):
        return

    def drain() -> None:
        api.drain()
        loop.call_later(grace_s, stop, signal.SIGTERM, None)

    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(drain))


@bentoml.service(
    name="rollout",
    workers=load_settings().processes,
    metrics={"enabled": False},  # its labels hold the paths of callers; ours are at /metrics
    logging={"access": {"enabled": False}},
)
class Predictor:
    """Batched inference of PyTorch models, A/B between champion and challenger, and review of the uncertain."""

    def __init__(self) -> None:
        self._settings = load_settings()
        logs.configure(self._settings.log)  # before BentoML says that there is a service

    @bentoml.on_startup
    async def start(self) -> None:
        """Loads, verifies and warms up what the splits name; only then is the service ready."""
        settings = self._settings
        prepare_home(settings.home)
        keep_private()
        self._resources = ExitStack()
        try:
            url = await asyncio.to_thread(self._resources.enter_context, running_redis(settings))
            with _ended_by_sigterm():
                self._engine = await Engine.load(settings, client_of(url))
            api.open(self._engine, settings)
            self._stop_telemetry = start_telemetry(lambda: self._engine.models)
        except RolloutError as error:
            logger.error("cannot start: %s", error.detail)
            self._resources.close()
            raise
        # What is loaded now stays: the collector need not walk through it again, which stalled every request
        # for tens of milliseconds; and a request makes thousands of small lists that die young.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        if settings.grpc_port:
            from rollout.http.oip_grpc import start  # noqa: PLC0415  takes an extra

            self._stop_grpc = await start(api, settings)
        _drain_at_sigterm(settings.grace_s)
        logger.info("serving %s", ", ".join(sorted(self._engine.models)))

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Makes the last review items durable; requests in flight have been answered."""
        if not api.is_open:
            return
        if self._settings.grpc_port:
            await self._stop_grpc()
        api.close()
        await self._engine.close()
        await asyncio.to_thread(self._stop_telemetry)
        await asyncio.to_thread(self._resources.close)
        if self._engine.is_stuck:
            logger.error("a runtime hangs; this worker ends without it")
            logging.shutdown()
            os._exit(0)  # its thread would keep the interpreter from exiting

    async def __is_ready__(self) -> bool:
        """Says yes on ``/readyz`` once everything is warm."""
        return api.is_open and not api.is_draining

    @bentoml.api
    async def predict(
        self,
        ctx: bentoml.Context,
        model: str,
        instances: list[dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """Predicts for a list of instances, as ``POST /v1/models/{model}/predict`` does.

        Args:
            ctx: The request; its headers ask for what they ask for there.
            model: The model.
            instances: Each with ``client_id``, ``inputs`` and, if wanted, ``key``. This says so to callers; what
                they send is taken from the request as it came, see ``bento_routes``.
        """
        scope, options = ctx.request.scope, DEFAULTS
        try:
            for name, value in scope["headers"]:
                if name in HEADERS:
                    options = options.with_header(name, value)
            api.authorize_options(scope, options)
            options = options._replace(traceparent=scope["traceparent"].decode())
            served = api.engine.model(model)
            body = scope["instances"]
            request = await decode_request(body, served.schema, self._settings, options, whether_gone(scope))
            answers = await api.engine.predict(served, request.rows)
            predictions = make_predictions(served.name, request.rows, answers)
            return [msgspec.to_builtins(one) for one in predictions]
        except Exception as error:
            # An error that is raised through BentoML is logged with a traceback, whoever made it.
            ours = as_rollout_error(error)
            ctx.response.status_code, scope["problem"] = ours.status, ours.type
            return problem_response(ours)  # type: ignore[return-value]  # it takes these too


Predictor.add_asgi_middleware(Dispatcher, gateway=api, routes=all_routes)  # type: ignore[attr-defined]
