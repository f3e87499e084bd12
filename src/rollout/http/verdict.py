"""The verdict over HTTP: what the evidence of the last hour says about the challenger."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rollout.http.bodies import json_response
from rollout.http.door import Door
from rollout.judge.verdict import ArmEvidence, Decision, Reason, Verdict, judge
from rollout.routing.assignment import Arm
from rollout.routing.census import count_clients
from rollout.routing.split import Split
from rollout.routing.splits import read_split
from rollout.routing.traffic import KEPT_S, ArmTraffic, read_traffic
from rollout.store import Redis

PATH = "/v1/models/{model}/verdict"
NO_TRIAL = Verdict("hold", "no_trial", "there is no challenger on trial")


class VerdictView(msgspec.Struct, kw_only=True):
    """What to do with the challenger, and why.

    Attributes:
        model: The model.
        revision: The revision of the split that it is about.
        verdict: ``promote``, ``rollback`` or ``hold``.
        reason: Why, as a word.
        detail: Why, in a sentence.
        evidence: Of each arm of the trial: clients under this revision; rows answered, rows that its version was
            asked to score and failures of the last hour.
    """

    model: str
    revision: int
    verdict: Decision
    reason: Reason
    detail: str
    evidence: dict[str, dict[str, int]]


class Verdicts:
    """The route of the verdict.

    Args:
        door: Lets requests through to the engine.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self.routes = [Route(PATH, self._verdict)]

    async def _verdict(self, request: Request) -> Response:
        engine = self._door.admit(request.scope, "app")
        model = engine.model(request.path_params["model"])
        split = await read_split(engine.redis, model.name) or model.split
        return json_response(await read_verdict(engine.redis, model.name, split))


async def read_verdict(redis: Redis, model: str, split: Split) -> VerdictView:
    """Gathers the evidence of a trial and judges it.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    arms: dict[Arm, ArmEvidence] = {}
    verdict = NO_TRIAL
    if split.challenger is not None:
        clients = await count_clients(redis, model, split.revision)
        traffic = {(one.arm, one.version): one for one in await read_traffic(redis, model, KEPT_S)}
        versions: dict[Arm, str] = {"control": split.champion, "challenger": split.challenger}
        arms = {arm: _evidence(clients[arm], traffic.get((arm, version))) for arm, version in versions.items()}
        outside = _evidence(0, traffic.get(("champion", split.champion)))
        verdict = judge(split.share, outside.rows, arms["control"], arms["challenger"])
    evidence: dict[str, dict[str, Any]] = {arm: found._asdict() for arm, found in arms.items()}
    return VerdictView(model=model, revision=split.revision, **verdict._asdict(), evidence=evidence)


def _evidence(clients: int, traffic: ArmTraffic | None) -> ArmEvidence:
    if traffic is None:
        return ArmEvidence(clients, 0, 0, 0)
    return ArmEvidence(clients, traffic.predictions, traffic.asked, traffic.failures)
