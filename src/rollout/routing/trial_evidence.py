"""The evidence of a trial in Redis: sums by revision, arm and group of clients, put together by stages."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import groupby, pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from rollout.judge.client_sums import ClientSums, sum_groups
from rollout.judge.disagreements import Labelled
from rollout.judge.evidence import ArmCounts, Disagreements, Outcomes, Stage, TrialEvidence
from rollout.judge.policy import ACCURACY, COUNTED, REVIEWED
from rollout.keys import Keys
from rollout.routing.assignment import Arm
from rollout.routing.changes import trial_began
from rollout.routing.client_counts import TRIAL, count_clients
from rollout.routing.groups import GROUPS, group_of
from rollout.routing.split import Split
from rollout.routing.splits import read_history
from rollout.routing.traffic import EVIDENCE_KEPT_S, KEPT_S, TICK_S, read_ticks
from rollout.routing.trial_reviews import Reviewed, read_reviewed
from rollout.store import Redis, decode_stored, guard, run_script, stored_at

# How far back a trial is followed: what was before so many changes does not count.
MOST_CHANGES = 1000
# Traffic is looked at in spans of so many seconds, to see whether it dries up.
SPAN_S = 300
# Outcomes that lie between 0 and 1; any other is a number in a unit of its own.
SHARES = (ACCURACY, *COUNTED)

# KEYS: for each outcome its own key and the evidence of its revision, then the clients of each of its values.
# ARGV: seconds to keep evidence, then for each outcome its client, and JSON of the values: a list of the name in
# the evidence, of the value, and of the place of the clients among KEYS. Returns how many were new.
GATHER = """
local new = 0
for i = 2, #ARGV, 2 do
    local outcome, evidence = KEYS[i - 1], KEYS[i]
    if redis.call('EXISTS', outcome) == 1 and redis.call('HSETNX', outcome, 'gathered', 1) == 1 then
        for _, value in ipairs(cjson.decode(ARGV[i + 1])) do
            redis.call('HINCRBYFLOAT', evidence, value[1] .. '|y', value[2])
            redis.call('HINCRBY', evidence, value[1] .. '|n', 1)
            redis.call('PFADD', KEYS[value[3]], ARGV[i])
            redis.call('EXPIRE', KEYS[value[3]], ARGV[1])
        end
        redis.call('EXPIRE', evidence, ARGV[1])
        new = new + 1
    end
end
return new
"""

# KEYS: disagreements, or reviewed rows. ARGV: seconds to keep them, then for each item its ID, and JSON, which is
# empty where its label was taken back.
LABEL = """
for i = 2, #ARGV, 2 do
    if ARGV[i + 1] == '' then
        redis.call('HDEL', KEYS[1], ARGV[i])
    else
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class Observed(NamedTuple):
    """What turned out to be true of one prediction in the trial.

    Attributes:
        id: The ID of its outcome.
        client_id: The caller's own ID of the client.
        arm: The client's arm.
        revision: Revision of the split under which it was predicted.
        values: By name: ``accuracy``, and those of the reported numbers that the policy asks about.
    """

    id: str
    client_id: str
    arm: str
    revision: int
    values: Mapping[str, float]


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What people decided on a row on which the versions disagree.

    Attributes:
        cursor: Of the decision, growing within a model.
        revision: Revision of the split under which it was predicted.
        right: By how much the challenger was less wrong, from -1 to 1; 1 if it alone was right.
        pi: The probability with which people were asked.
    """

    cursor: int
    revision: int
    right: float
    pi: float


async def add_outcomes(redis: Redis, model: str, observed: Sequence[Observed]) -> int:
    """Adds outcomes to the evidence, each once however often it comes.

    Args:
        redis: Connection.
        model: The model.
        observed: Outcomes that are joined with their predictions.

    Returns:
        How many were new.

    Raises:
        StoreUnavailableError: If Redis does not answer; adding them again is safe.
    """
    if not observed:
        return 0
    names = Keys(model)
    keys = [key for one in observed for key in (names.outcome(one.id), names.evidence(one.revision))]
    places: dict[str, int] = {}
    arguments: list[str | bytes | int] = [EVIDENCE_KEPT_S]
    for one in observed:
        group = group_of(one.client_id)
        values = []
        for name, value in one.values.items():
            clients = names.clients(one.revision, one.arm, name)
            place = places.setdefault(clients, len(keys) + len(places) + 1)
            values.append((f"{one.arm}|{name}|{group}", value, place))
        arguments += [one.client_id.encode("utf-8", "surrogatepass"), msgspec.json.encode(values)]
    return int(await run_script(redis, GATHER, [*keys, *places], *arguments))


async def add_decisions(redis: Redis, model: str, decided: Mapping[str, Decided | None]) -> None:
    """Keeps what people decided on disagreements; the last decision on an item counts.

    Args:
        redis: Connection.
        model: The model.
        decided: By the ID of the review item; ``None`` where a decision was taken back.

    Raises:
        StoreUnavailableError: If Redis does not answer; adding them again is safe.
    """
    await _label(redis, Keys(model).disagreements, decided)


async def add_reviewed(redis: Redis, model: str, reviewed: Mapping[str, Reviewed | None]) -> None:
    """Keeps what people decided on rows of both arms; as ``add_decisions`` does."""
    await _label(redis, Keys(model).reviewed, reviewed)


async def _label(redis: Redis, key: str, decided: Mapping[str, Decided | Reviewed | None]) -> None:
    if not decided:
        return
    arguments: list[str | bytes | int] = [EVIDENCE_KEPT_S]
    for item_id, one in decided.items():
        arguments += [item_id, b"" if one is None else msgspec.json.encode(one)]
    await run_script(redis, LABEL, [key], *arguments)


async def keep_evidence(redis: Redis, model: str, splits: Sequence[Split]) -> None:
    """Lets the evidence of a trial live for as long again, however long ago the last of it came.

    Args:
        redis: Connection.
        model: The model.
        splits: The trial's revisions.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    keys = Keys(model)
    pipe = redis.pipeline(transaction=False)
    for one in splits:
        pipe.hgetall(keys.evidence(one.revision))
    async with guard():
        found: list[dict[bytes, bytes]] = await pipe.execute()
    names = [keys.disagreements, keys.reviewed]
    for one, fields in zip(splits, found, strict=True):
        with stored_at(keys.evidence(one.revision)):
            outcomes = {"", *(name for (_, name), place in map(_read_field, fields) if place is not None)}
        names.append(keys.evidence(one.revision))
        names += (keys.clients(one.revision, arm, outcome) for arm in TRIAL for outcome in sorted(outcomes))
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.expire(name, EVIDENCE_KEPT_S)
    async with guard():
        await pipe.execute()


class _Sums(NamedTuple):
    """What the evidence of a stage holds.

    Attributes:
        counts: By arm and name.
        groups: By arm and outcome: its sum and its rows for each group, shape ``(GROUPS, 2)``.
    """

    counts: Mapping[tuple[str, str], int]
    groups: Mapping[tuple[str, str], np.ndarray[tuple[int, int], np.dtype[np.float64]]]


async def read_evidence(redis: Redis, model: str, split: Split) -> TrialEvidence:
    """Returns all that is known of a trial: only what was seen since these bundles have been on it.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    return await read_trial(redis, model, await read_course(redis, model, split))


async def read_course(redis: Redis, model: str, split: Split) -> list[Split]:
    """Returns the revisions of a trial, from that with which it began to this one.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    history = await read_history(redis, model, MOST_CHANGES)
    first = trial_began(history, split)
    return [*(one for one in history if first <= one.revision < split.revision), split]


async def read_trial(redis: Redis, model: str, splits: Sequence[Split]) -> TrialEvidence:
    """Returns all that is known of a trial.

    Revisions that follow each other with the same share are one stage.

    Args:
        redis: Connection.
        model: The model.
        splits: Its revisions, at least one.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    stages = [list(stage) for _, stage in groupby(splits, key=lambda one: one.share)]
    keys = Keys(model)
    pipe = redis.pipeline(transaction=False)
    for one in splits:
        pipe.hgetall(keys.evidence(one.revision))
    pipe.hgetall(keys.disagreements)
    async with guard():
        *found, decided = await pipe.execute()
    by_revision = dict(zip((one.revision for one in splits), found, strict=True))
    # In a thread, since there are thousands of sums, and rows are answered meanwhile.
    sums = []
    for stage in stages:
        with stored_at(keys.evidence(stage[0].revision)):
            sums.append(await asyncio.to_thread(_add_up, [by_revision[one.revision] for one in stage]))
    starts = [_seconds(stage[0].at) for stage in stages]
    lasted = [max(0.0, end - start) for start, end in pairwise([*starts, time.time()])]
    made = [
        Stage(
            share=stage[0].share,
            seconds=seconds,
            control=_counts("control", one, await _clients(redis, model, stage, "control")),
            challenger=_counts("challenger", one, await _clients(redis, model, stage, "challenger")),
            outside=one.counts.get(("champion", "rows"), 0),
        )
        for stage, seconds, one in zip(stages, lasted, sums, strict=True)
    ]
    outcomes = await _outcomes(redis, model, splits, sums)
    if (reviewed := await read_reviewed(redis, model, stages)) is not None:
        outcomes[REVIEWED] = reviewed
    return TrialEvidence(
        stages=tuple(made),
        outcomes=outcomes,
        disagreements=_disagreements(sums, decided, splits[0].revision, Keys(model).disagreements),
        traffic=await _traffic(redis, model, starts[-1]),
    )


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp() if at else time.time()


async def _clients(redis: Redis, model: str, stage: Sequence[Split], arm: Arm) -> int:
    return (await count_clients(redis, model, [one.revision for one in stage]))[arm]


@lru_cache(maxsize=1 << 16)
def _read_field(field: bytes) -> tuple[tuple[str, str], tuple[int, int] | None]:
    """Returns the arm and the name that a field is about, and of a sum of a group where it belongs."""
    arm, name, *rest = field.decode().split("|")
    if not rest:
        return (arm, name), None
    group, part = rest
    return (arm, name), (int(group), 0 if part == "y" else 1)


def _add_up(revisions: Sequence[Mapping[bytes, bytes]]) -> _Sums:
    """Adds up what is stored of the revisions of a stage."""
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    groups: defaultdict[tuple[str, str], np.ndarray[tuple[int, int], np.dtype[np.float64]]] = defaultdict(
        lambda: np.zeros((GROUPS, 2))
    )
    for stored in revisions:
        for field, value in stored.items():
            what, place = _read_field(field)
            if place is None:
                counts[what] += int(value)
            else:
                groups[what][place] += float(value)
    return _Sums(counts, groups)


def _counts(arm: Arm, sums: _Sums, clients: int) -> ArmCounts:
    names = ("rows", "requests", "failures", "late")
    return ArmCounts(clients=clients, **{name: sums.counts.get((arm, name), 0) for name in names})


async def _outcomes(
    redis: Redis, model: str, splits: Sequence[Split], stages: Sequence[_Sums]
) -> dict[str, Outcomes]:
    revisions, policy = [one.revision for one in splits], splits[-1].policy
    asked = {*SHARES, *(policy.numbers if policy is not None else ())}
    found = {}
    for name in sorted(asked.intersection(name for sums in stages for _, name in sums.groups)):
        clients = await count_clients(redis, model, revisions, "" if name in COUNTED else name)
        sums = {arm: _client_sums(stages, arm, name, clients[arm]) for arm in TRIAL}
        found[name] = Outcomes(is_share=name in SHARES, control=sums["control"], challenger=sums["challenger"])
    return found


def _client_sums(stages: Sequence[_Sums], arm: Arm, name: str, clients: int) -> ClientSums:
    nothing = np.zeros((GROUPS, 2))
    return sum_groups(clients, np.concatenate([one.groups.get((arm, name), nothing) for one in stages], axis=1))


def _disagreements(sums: Sequence[_Sums], stored: Mapping[bytes, bytes], first: int, key: str) -> Disagreements:
    decided = sorted((decode_stored(one, Decided, key) for one in stored.values()), key=lambda one: one.cursor)
    shadowed, disagreed, failed = (
        sum(one.counts.get((arm, name), 0) for one in sums for arm in ("champion", "control"))
        for name in ("shadowed", "disagreed", "unscored")
    )
    labelled = tuple(Labelled(one.right, one.pi) for one in decided if one.revision >= first)
    # A label may come before its disagreement is counted.
    disagreed = max(disagreed, len(labelled))
    return Disagreements(shadowed=max(shadowed, disagreed), disagreed=disagreed, failed=failed, labelled=labelled)


async def _traffic(redis: Redis, model: str, since: float) -> tuple[int, ...]:
    """Returns the rows of the trial in spans since the present stage began, as far as they are over."""
    now = int(time.time())
    last = now // SPAN_S
    first = max(int(since) // SPAN_S + 1, last - KEPT_S // SPAN_S)
    spans = dict.fromkeys(range(first, last), 0)
    if not spans:
        return ()
    ticks = await read_ticks(redis, model, min(now - first * SPAN_S, KEPT_S))
    for tick, counts in ticks.items():
        span = tick * TICK_S // SPAN_S
        if span in spans:
            spans[span] += sum(
                int(count)
                for field, count in counts.items()
                if field.endswith(b"|predictions") and field.split(b"|")[0] in (b"control", b"challenger")
            )
    return tuple(spans.values())
