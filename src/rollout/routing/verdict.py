"""The verdict: what the evidence of the trial, of the last hour at most, says about the challenger."""

from __future__ import annotations

from typing import Any

import msgspec

from rollout.judge.verdict import ArmEvidence, Decision, Reason, Verdict, judge
from rollout.routing.assignment import Arm
from rollout.routing.changes import trial_began
from rollout.routing.client_counts import count_clients
from rollout.routing.split import Split
from rollout.routing.splits import read_history
from rollout.routing.traffic import KEPT_S, Evidence, read_traffic
from rollout.store import Redis

# How far back a trial is followed: what was before so many changes does not count.
MOST_CHANGES = 100
NO_TRIAL = Verdict("hold", "no_trial", "there is no challenger on trial")


class VerdictView(msgspec.Struct, kw_only=True):
    """What to do with the challenger, and why.

    Attributes:
        model: The model.
        revision: The revision of the split that it is about.
        verdict: ``promote``, ``rollback`` or ``hold``.
        reason: Why, as a word.
        detail: Why, in a sentence.
        evidence: Of each arm of the trial. Under this revision: clients, and rows answered in the last hour.
            Since these bundles are on trial, in the last hour: requests in which its version attempted any row,
            failures among them by an error of its own, and rows that the champion answered since it was late.
    """

    model: str
    revision: int
    verdict: Decision
    reason: Reason
    detail: str
    evidence: dict[str, dict[str, int]]


async def read_verdict(redis: Redis, model: str, split: Split) -> VerdictView:
    """Gathers the evidence of a trial and judges it.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    arms: dict[Arm, ArmEvidence] = {}
    verdict = NO_TRIAL
    if split.challenger is not None:
        clients = await count_clients(redis, model, split.revision)
        first = trial_began(await read_history(redis, model, MOST_CHANGES), split)
        traffic = {(one.arm, one.version): one.evidence for one in await read_traffic(redis, model, KEPT_S)}
        versions: dict[Arm, str] = {"control": split.champion, "challenger": split.challenger}
        for arm, version in versions.items():
            found = traffic.get((arm, version), {})
            trial = [one for revision, one in found.items() if first <= revision <= split.revision]
            arms[arm] = ArmEvidence(
                clients[arm],
                found.get(split.revision, Evidence()).rows,
                sum(one.requests for one in trial),
                sum(one.failures for one in trial),
                sum(one.late for one in trial),
            )
        outside = traffic.get(("champion", split.champion), {}).get(split.revision, Evidence())
        verdict = judge(split.share, outside.rows, arms["control"], arms["challenger"])
    evidence: dict[str, dict[str, Any]] = {arm: found._asdict() for arm, found in arms.items()}
    return VerdictView(model=model, revision=split.revision, **verdict._asdict(), evidence=evidence)
