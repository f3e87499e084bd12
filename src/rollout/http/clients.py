"""Forgetting a client over HTTP."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from rollout.errors import InvalidRequestError
from rollout.http.bodies import json_response
from rollout.http.gateway import Gateway
from rollout.http.routes import GatedRoute
from rollout.review.forget import forget_client

PATH = "/v1/models/{model}/clients/{client_id:path}"


class Clients:
    """The route that forgets a client.

    Args:
        gateway: Lets requests through to the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.routes = [GatedRoute(PATH, self._forget, role="admin", methods=["DELETE"])]

    async def _forget(self, request: Request) -> Response:
        engine = self._gateway.engine
        model = engine.model(request.path_params["model"])
        client_id = request.path_params["client_id"]
        if not client_id:
            raise InvalidRequestError("name the client to forget at the end of the path")
        retention_s = model.sampler.policy.retention_s
        return json_response({"forgotten": await forget_client(engine.redis, model.name, client_id, retention_s)})
