"""Looks at a trial over time: how intervals narrowed, how much was answered, what the last of them counted."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rollout.clock import utc_now
from rollout.judge.evidence import ArmCounts, Stage, TrialEvidence
from rollout.judge.findings import Finding
from rollout.judge.verdict import Decision, Reason, Verdict
from rollout.keys import Keys
from rollout.routing.assignment import Arm
from rollout.routing.split import Split
from rollout.routing.traffic import EVIDENCE_KEPT_S
from rollout.store import Redis, decode_each, decode_stored, guard

MOST_LOOKS = 2000
# One look in so much of the trial's age: a long trial has not many more than a short one.
PART = 200
SOONEST_S = 5.0


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of a trial at a time.

    Attributes:
        at: When, ISO 8601 in UTC.
        revision: Revision of the split.
        share: The share of the stage.
        verdict: What to do.
        reason: Why.
        detail: Why, in a sentence.
        findings: What was known about each question.
        labels_wanted: Labels that were still to be expected until a verdict.
        evidence: What was counted of each arm.
    """

    at: str
    revision: int
    share: float
    verdict: Decision
    reason: Reason
    detail: str
    findings: tuple[Finding, ...]
    labels_wanted: int | None
    evidence: dict[Arm, ArmCounts]


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What the last look counted.

    Attributes:
        first: The revision with which the trial began.
        stages: Its stages.
    """

    first: int
    stages: tuple[Stage, ...]


def is_due(age_s: float, since_s: float) -> bool:
    """Whether it is time for another look at a trial of this age, so long after the last."""
    return since_s >= max(SOONEST_S, age_s / PART)


async def add_look(
    redis: Redis, model: str, split: Split, verdict: Verdict, evidence: dict[Arm, ArmCounts]
) -> None:
    """Keeps a look.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    look = Look(
        at=utc_now(),
        revision=split.revision,
        share=split.share,
        verdict=verdict.verdict,
        reason=verdict.reason,
        detail=verdict.detail,
        findings=verdict.findings,
        labels_wanted=verdict.labels_wanted,
        evidence=evidence,
    )
    async with guard():
        await redis.xadd(Keys(model).looks, {"look": msgspec.json.encode(look)}, maxlen=MOST_LOOKS)


async def read_looks(redis: Redis, model: str, first: int) -> Sequence[Look]:
    """Returns the looks at a trial, oldest first.

    Args:
        redis: Connection.
        model: The model.
        first: The revision with which it began.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        found: list[tuple[bytes, dict[bytes, bytes]]] = await redis.xrange(Keys(model).looks)  # type: ignore[assignment]
    looks = decode_each(((Keys(model).looks, fields.get(b"look", b"")) for _, fields in found), Look)
    return [look for look in looks if look.revision >= first]


async def keep_counted(redis: Redis, model: str, first: int, evidence: TrialEvidence) -> None:
    """Keeps what was counted, for whichever worker looks next.

    Args:
        redis: Connection.
        model: The model.
        first: The revision with which the trial began.
        evidence: Which can be believed.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    counted = msgspec.json.encode(Counted(first=first, stages=evidence.stages))
    async with guard():
        await redis.set(Keys(model).counted, counted, ex=EVIDENCE_KEPT_S)


async def read_counted(redis: Redis, model: str, first: int) -> TrialEvidence | None:
    """Returns what the last look at a trial counted; ``None`` where there was none.

    Read it before the evidence that is to be compared with it, or another worker's later look would make that
    seem to have gone backwards.

    Args:
        redis: Connection.
        model: The model.
        first: The revision with which the trial began.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        stored = await redis.get(Keys(model).counted)
    counted = None if stored is None else decode_stored(stored, Counted, Keys(model).counted)
    return None if counted is None or counted.first != first else TrialEvidence(stages=counted.stages)
