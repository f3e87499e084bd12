"""The verdict over HTTP."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from rollout.http.bodies import json_response
from rollout.http.gateway import Gateway
from rollout.http.routes import GatedRoute
from rollout.routing.splits import read_split
from rollout.routing.verdict import read_verdict

PATH = "/v1/models/{model}/verdict"


class Verdicts:
    """The route of the verdict.

    Args:
        gateway: Lets requests through to the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.routes = [GatedRoute(PATH, self._verdict, role="app")]

    async def _verdict(self, request: Request) -> Response:
        engine = self._gateway.engine
        model = engine.model(request.path_params["model"])
        split = await read_split(engine.redis, model.name) or model.split
        return json_response(await read_verdict(engine.redis, model.name, split))
