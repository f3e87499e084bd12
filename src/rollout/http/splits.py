"""The split over HTTP: read it, change it if nobody else was first, and see every change."""

from __future__ import annotations

import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rollout.errors import (
    InvalidRequestError,
    PreconditionRequiredError,
    StoreUnavailableError,
)
from rollout.http.bodies import decode_json, json_response
from rollout.http.gateway import Gateway
from rollout.http.routes import JSON, GatedRoute
from rollout.inference.engine import Engine
from rollout.routing.changes import default_experiment
from rollout.routing.control import carry_out, propose, propose_removal
from rollout.routing.split import Split
from rollout.routing.splits import read_history, read_split

PATH = "/v1/models/{model}/split"
ETAG = re.compile(r'"?(\d{1,15})"?')


class Splits:
    """The routes of the split.

    Args:
        gateway: Lets requests through to the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.routes = [
            GatedRoute(PATH, self._split, role="admin", methods=["GET", "PUT", "DELETE"], takes=[JSON]),
            GatedRoute(f"{PATH}/history", self._history, role="admin"),
        ]

    async def _split(self, request: Request) -> Response:
        engine = self._gateway.engine
        model = engine.model(request.path_params["model"])
        if request.method == "DELETE":
            revision = _revision(request.headers.get("if-match"))
            proposal = await propose_removal(engine.redis, model.name, revision)
            why = request.query_params.get("why", "")
            return _split_response(await carry_out(engine.redis, proposal, "admin", why))
        if request.method == "PUT":
            return _split_response(await self._change(request, engine, model.name))
        try:
            return _split_response(await read_split(engine.redis, model.name) or model.split)
        except StoreUnavailableError:
            return _split_response(model.split)

    async def _change(self, request: Request, engine: Engine, model: str) -> Split:
        revision = _revision(request.headers.get("if-match"))
        wanted = decode_split(await self._gateway.read(request.receive), model)
        proposal = await propose(
            engine.redis,
            model,
            lambda _: wanted,
            revision=revision,
            renew=True,
            release=request.query_params.get("release") == "true",
            key=self._gateway.settings.public_key,
        )
        return await carry_out(engine.redis, proposal, "admin", wanted.why)

    async def _history(self, request: Request) -> Response:
        engine = self._gateway.engine
        model = engine.model(request.path_params["model"])
        return json_response({"history": await read_history(engine.redis, model.name)})


def decode_split(body: bytes, model: str) -> Split:
    """Reads a split as it is sent; a challenger without an experiment key gets the usual one.

    Raises:
        MalformedBodyError: If the body is not JSON.
        InvalidRequestError: If a field is unknown or does not fit.
        InvalidSplitError: If the parts do not make a split.
    """

    def decode(text: bytes) -> Split:
        sent = msgspec.json.decode(text)
        if isinstance(sent, dict) and sent.get("challenger") and not sent.get("experiment"):
            sent["experiment"] = default_experiment(model, sent.get("champion", ""), sent["challenger"])
        return msgspec.convert(sent, Split)

    return decode_json(decode, body)


def _revision(header: str | None) -> int:
    if header is None:
        raise PreconditionRequiredError(
            "send the header If-Match with the revision that the change is based on: the ETag of GET"
        )
    found = ETAG.fullmatch(header.strip())
    if found is None:
        raise InvalidRequestError('If-Match must be a revision, such as "12"')
    return int(found[1])


def _split_response(split: Split) -> Response:
    return json_response(split, {"ETag": f'"{split.revision}"'})
