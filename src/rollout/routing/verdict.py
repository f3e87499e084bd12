"""The verdict: what the evidence of the trial says about the challenger, and how the last trial ended."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from rollout.judge.evidence import ArmCounts, TrialEvidence
from rollout.judge.verdict import NO_TRIAL, Decision, Verdict, judge
from rollout.routing.assignment import Arm
from rollout.routing.looks import read_counted
from rollout.routing.split import Split
from rollout.routing.splits import read_history, read_quarantine
from rollout.routing.trial_evidence import MOST_CHANGES, read_course, read_trial
from rollout.store import Redis


class VerdictView(Verdict, frozen=True, kw_only=True):
    """What to do with the challenger, and why.

    Attributes:
        model: The model.
        revision: The revision of the split that it is about.
        evidence: Of each arm of the trial. In the present stage: clients, and rows that were answered. Since
            these bundles are on trial: requests in which its version attempted any row, failures among them by an
            error of its own, and rows that the champion answered since it was late.
    """

    model: str
    revision: int
    evidence: dict[Arm, ArmCounts]


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How the last trial of a model ended.

    Attributes:
        outcome: ``promote`` where its challenger is champion now, ``rollback`` where it is in quarantine.
        version: The challenger.
        revision: The revision of the split that ended it.
        at: When, ISO 8601 in UTC.
        by: Who.
        why: What for.
    """

    outcome: Decision
    version: str
    revision: int
    at: str
    by: str
    why: str


async def read_ended(redis: Redis, model: str, split: Split) -> Ended | None:
    """Returns how the last trial ended; ``None`` where one is running, or it ended in neither way.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    if split.challenger is not None:
        return None
    history = await read_history(redis, model, MOST_CHANGES)
    changes = (pair for pair in reversed(list(pairwise(history))) if pair[0].challenger is not None)
    trial, after = next(changes, (None, None))
    if trial is None or after is None or trial.challenger is None:
        return None
    version, digest = trial.challenger, trial.digests.get(trial.challenger)
    outcome: Decision | None = None
    if split.champion == version and split.digests.get(version) == digest:
        outcome = "promote"
    elif digest is not None and digest in await read_quarantine(redis, model):
        outcome = "rollback"
    if outcome is None:
        return None
    return Ended(
        outcome=outcome, version=version, revision=after.revision, at=after.at, by=after.by, why=after.why
    )


async def read_verdict(redis: Redis, model: str, split: Split) -> VerdictView:
    """Gathers the evidence of a trial and judges it.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    if split.challenger is None:
        return view(model, split, NO_TRIAL)
    course = await read_course(redis, model, split)
    before = await read_counted(redis, model, course[0].revision)
    evidence = await read_trial(redis, model, course)
    return view(model, split, judge(evidence, split.policy, before), evidence)


def view(model: str, split: Split, verdict: Verdict, evidence: TrialEvidence | None = None) -> VerdictView:
    """Returns a verdict with what it is about."""
    judged = msgspec.structs.asdict(verdict)
    counts = {} if evidence is None else shown(evidence)
    return VerdictView(model=model, revision=split.revision, evidence=counts, **judged)


def shown(evidence: TrialEvidence) -> dict[Arm, ArmCounts]:
    """Returns what is shown of each arm: clients and rows of the present stage, the rest of all stages."""
    present: dict[Arm, ArmCounts] = {
        "control": evidence.present.control,
        "challenger": evidence.present.challenger,
    }
    return {
        arm: msgspec.structs.replace(
            counts, **{name: evidence.total(arm, name) for name in ("requests", "failures", "late")}
        )
        for arm, counts in present.items()
    }
