"""What is known of a model over HTTP: the verdict, whether live rows moved, what became of labels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from rollout.http.bodies import json_response
from rollout.http.gateway import Gateway
from rollout.http.routes import GatedRoute
from rollout.inference.served_model import ServedModel
from rollout.routing.drift import DriftView, read_drift
from rollout.routing.improvement import Improvement, read_improvement
from rollout.routing.splits import read_split
from rollout.routing.verdict import VerdictView, read_verdict
from rollout.store import Redis

PATH = "/v1/models/{model}"


class Known:
    """The routes of what was found out about a model.

    Args:
        gateway: Lets requests through to the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.routes = [
            GatedRoute(f"{PATH}/verdict", self._answer(_verdict), role="app"),
            GatedRoute(f"{PATH}/drift", self._answer(_drift), role="app"),
            GatedRoute(f"{PATH}/improvement", self._answer(_improvement), role="admin"),
        ]

    def _answer(
        self, read: Callable[[Redis, ServedModel], Awaitable[object]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            engine = self._gateway.engine
            return json_response(await read(engine.redis, engine.model(request.path_params["model"])))

        return endpoint


async def _verdict(redis: Redis, model: ServedModel) -> VerdictView:
    return await read_verdict(redis, model.name, await read_split(redis, model.name) or model.split)


async def _drift(redis: Redis, model: ServedModel) -> DriftView:
    return await read_drift(redis, model.name)


async def _improvement(redis: Redis, model: ServedModel) -> Improvement:
    return await read_improvement(redis, model.name)
