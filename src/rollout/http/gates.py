"""Gates: whether a deployment may go on, as a status code, for tools that can send no token."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rollout.http.gateway import Gateway
from rollout.http.routes import GatedRoute
from rollout.inference.served_model import ServedModel
from rollout.judge.verdict import Decision
from rollout.routing.splits import read_split
from rollout.routing.verdict import read_verdict

PATH = "/gates/{model}"
# The verdicts on which each gate is open.
OPEN_ON: dict[str, tuple[Decision, ...]] = {
    "go-on": ("promote", "hold"),
    "promote": ("promote",),
    "rollback": ("rollback",),
}
CLOSED = 409
# Whoever reaches it may ask, and asking costs a look at all of the evidence: so often it is looked at.
KEPT_S = 1.0


class GateView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a gate is open: no more of the trial than the metrics tell, which are open as well.

    Attributes:
        model: The model.
        gate: Its name.
        is_open: Whether.
        verdict: On the trial of the model.
    """

    model: str
    gate: str
    is_open: bool
    verdict: Decision


class Gates:
    """The routes of the gates: 200 where a gate is open, 409 where it is closed. They change nothing.

    Flagger's webhooks POST a body of JSON about their canary, which says nothing that is needed and is not read;
    anything but 200 to 202 is a no to them. They send no header that one could choose, so there is no token.

    Args:
        gateway: Lets requests through to the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._looks: dict[str, tuple[float, asyncio.Task[Decision]]] = {}
        self.routes = [
            GatedRoute(f"{PATH}/{gate}", partial(self._answer, gate), role=None, methods=["POST"])
            for gate in OPEN_ON
        ]

    async def _answer(self, gate: str, request: Request) -> Response:
        engine = self._gateway.engine
        model = engine.model(request.path_params["model"])
        verdict = await asyncio.shield(self._look(model))
        is_open = verdict in OPEN_ON[gate]
        found = GateView(model=model.name, gate=gate, is_open=is_open, verdict=verdict)
        return Response(
            msgspec.json.encode(found), status_code=200 if is_open else CLOSED, media_type="application/json"
        )

    def _look(self, model: ServedModel) -> asyncio.Task[Decision]:
        """Returns the look at a model that all who ask now wait for, whatever comes of it."""
        at, look = self._looks.get(model.name, (0.0, None))
        if look is None or (look.done() and time.monotonic() - at > KEPT_S):
            look = asyncio.ensure_future(self._verdict(model))
            look.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody waits
            self._looks[model.name] = time.monotonic(), look
        return look

    async def _verdict(self, model: ServedModel) -> Decision:
        redis = self._gateway.engine.redis
        split = await read_split(redis, model.name) or model.split
        return (await read_verdict(redis, model.name, split)).verdict
