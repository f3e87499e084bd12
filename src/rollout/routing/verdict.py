"""The verdict: what the evidence of the trial, of the last hour at most, says about the challenger."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise

import msgspec

from rollout.judge.evidence import ArmCounts, Stage, TrialEvidence
from rollout.judge.verdict import NO_TRIAL, Verdict, judge
from rollout.routing.assignment import Arm
from rollout.routing.changes import trial_began
from rollout.routing.client_counts import TRIAL, count_clients
from rollout.routing.split import Split
from rollout.routing.splits import read_history
from rollout.routing.traffic import KEPT_S, Evidence, read_traffic
from rollout.store import Redis

# How far back a trial is followed: what was before so many changes does not count.
MOST_CHANGES = 100


class VerdictView(Verdict, frozen=True, kw_only=True):
    """What to do with the challenger, and why.

    Attributes:
        model: The model.
        revision: The revision of the split that it is about.
        evidence: Of each arm of the trial. Under this revision: clients, and rows answered in the last hour.
            Since these bundles are on trial, in the last hour: requests in which its version attempted any row,
            failures among them by an error of its own, and rows that the champion answered since it was late.
    """

    model: str
    revision: int
    evidence: dict[Arm, ArmCounts]


async def read_verdict(redis: Redis, model: str, split: Split) -> VerdictView:
    """Gathers the evidence of a trial and judges it.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    if split.challenger is None:
        return _view(model, split, NO_TRIAL, {})
    evidence = await _read_evidence(redis, model, split)
    present: dict[Arm, ArmCounts] = {
        "control": evidence.present.control,
        "challenger": evidence.present.challenger,
    }
    shown = {
        arm: msgspec.structs.replace(
            counts, **{name: evidence.total(arm, name) for name in ("requests", "failures", "late")}
        )
        for arm, counts in present.items()
    }
    return _view(model, split, judge(evidence), shown)


def _view(model: str, split: Split, verdict: Verdict, evidence: dict[Arm, ArmCounts]) -> VerdictView:
    judged = msgspec.structs.asdict(verdict)
    return VerdictView(model=model, revision=split.revision, evidence=evidence, **judged)


async def _read_evidence(redis: Redis, model: str, split: Split) -> TrialEvidence:
    """Each revision since the bundles are on trial is a stage; clients are those of the present one."""
    history = await read_history(redis, model, MOST_CHANGES)
    first = trial_began(history, split)
    traffic = {(one.arm, one.version): one.evidence for one in await read_traffic(redis, model, KEPT_S)}
    clients = await count_clients(redis, model, split.revision)
    splits = [*(one for one in history if first <= one.revision < split.revision), split]
    stages = [_stage(one, after.at, traffic) for one, after in pairwise(splits)]
    present = _stage(split, "", traffic)
    counted = {arm: msgspec.structs.replace(getattr(present, arm), clients=clients[arm]) for arm in TRIAL}
    return TrialEvidence(stages=(*stages, msgspec.structs.replace(present, **counted)))


def _stage(split: Split, until: str, traffic: Mapping[tuple[Arm, str], Mapping[int, Evidence]]) -> Stage:
    """Returns a stage without its clients.

    Args:
        split: The split that made it.
        until: When the next one ended it, ISO 8601; empty for the present one.
        traffic: By arm and version, and revision.
    """

    def found(arm: Arm, version: str | None) -> Evidence:
        return traffic.get((arm, version or ""), {}).get(split.revision, Evidence())

    end = datetime.fromisoformat(until).timestamp() if until else time.time()
    seconds = end - datetime.fromisoformat(split.at).timestamp() if split.at else 0.0
    return Stage(
        share=split.share,
        seconds=max(0.0, seconds),
        control=ArmCounts(**msgspec.structs.asdict(found("control", split.champion))),
        challenger=ArmCounts(**msgspec.structs.asdict(found("challenger", split.challenger))),
        outside=found("champion", split.champion).rows,
    )
