"""The evidence of a trial: each outcome counts once, for its own time and share, and nothing of a single client."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from rollout.judge.client_sums import as_arm, difference, sum_clients, sum_groups
from rollout.judge.disagreements import Labelled
from rollout.judge.evidence import Disagreements
from rollout.keys import Keys
from rollout.routing import traffic as traffic_module
from rollout.routing import trial_evidence as module
from rollout.routing.assignment import Arm
from rollout.routing.changes import rollback
from rollout.routing.client_counts import add_clients
from rollout.routing.groups import GROUPS, group_of
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.routing.traffic import EVIDENCE_KEPT_S, Worker, add_traffic
from rollout.routing.trial_evidence import SPAN_S, Decided, Observed, add_decisions, add_outcomes, read_evidence
from rollout.store import Redis

NAMES = Keys("digits")
TRIAL = Split(champion="v1", challenger="v2", share=0.1, experiment="e", digests={"v1": "one", "v2": "two"})


def seen(number: int, arm: Arm = "control", revision: int = 1, right: float = 1.0, client: str = "") -> Observed:
    return Observed(f"{number:032x}", client or f"client-{number}", arm, revision, {"accuracy": right})


async def observe(redis: Redis, *observed: Observed) -> int:
    for one in observed:
        await redis.hset(NAMES.outcome(one.id), "reported", "{}")
    return await add_outcomes(redis, "digits", observed)


async def ramp(redis: Redis, *shares: float) -> Split:
    split = TRIAL
    for share in shares:
        split = await write_split(redis, "digits", msgspec.structs.replace(split, share=share))
    return split


async def test_an_outcome_counts_once_however_often_it_comes(redis: Redis) -> None:
    split = await ramp(redis, 0.1)
    one, other = seen(1), seen(2, "challenger", right=0.0)
    assert await observe(redis, one, other) == 2
    told = await asyncio.gather(*(observe(redis, one, other, seen(3)) for _ in range(5)))
    assert sum(told) == 1
    found = (await read_evidence(redis, "digits", split)).outcomes["accuracy"]
    assert (found.control.clients, found.control.sums) == (2, [2.0, 2.0])
    assert (found.challenger.clients, found.challenger.sums) == (1, [0.0, 1.0])
    assert found.is_share


async def test_an_outcome_that_expired_meanwhile_leaves_nothing(redis: Redis) -> None:
    assert await add_outcomes(redis, "digits", [seen(1)]) == 0
    assert await redis.keys() == []


async def test_nothing_of_a_single_client_is_kept_and_all_of_it_expires(redis: Redis) -> None:
    await observe(redis, *(seen(number, client="zoe-4711") for number in range(3)))
    evidence = await redis.hgetall(NAMES.evidence(1))
    group = group_of("zoe-4711")
    assert evidence == {
        f"control|accuracy|{group}|y".encode(): b"3",
        f"control|accuracy|{group}|n".encode(): b"3",
    }
    for key in (NAMES.evidence(1), NAMES.clients(1, "control", "accuracy")):
        assert EVIDENCE_KEPT_S - 5 < await redis.ttl(key) <= EVIDENCE_KEPT_S
    assert len({group_of(f"client-{number}") for number in range(5_000)}) == GROUPS


async def test_stages_are_shares_and_a_client_is_one_in_all_of_them(redis: Redis) -> None:
    split = await ramp(redis, 0.1, 0.1, 0.2)
    rows = [(1, 1, 1.0), (2, 2, 0.0), (3, 3, 1.0)]
    await observe(redis, *(seen(number, revision=at, right=right, client="c") for number, at, right in rows))
    evidence = await read_evidence(redis, "digits", split)
    assert [stage.share for stage in evidence.stages] == [0.1, 0.2]
    control = evidence.outcomes["accuracy"].control
    assert (control.clients, control.sums) == (1, [1.0, 2.0, 1.0, 1.0])
    assert control.products[0] == [1.0, 2.0, 1.0, 1.0], "what its stages have in common is known"


async def test_only_the_trials_own_time_counts(redis: Redis) -> None:
    first = await ramp(redis, 0.1)
    await observe(redis, seen(1))
    await add_clients(redis, "digits", first.revision, {"control": {"a", "b"}})
    await add_decisions(redis, "digits", {"a": Decided(cursor=1, revision=1, right=1, pi=1.0)})
    off = await write_split(redis, "digits", rollback(first)[0])
    again = await write_split(redis, "digits", msgspec.structs.replace(TRIAL, revision=off.revision))
    evidence = await read_evidence(redis, "digits", again)
    assert (len(evidence.stages), evidence.outcomes, evidence.disagreements) == (1, {}, Disagreements())
    assert evidence.present.control.clients == 0


async def test_another_experiment_key_begins_anew(redis: Redis) -> None:
    first = await ramp(redis, 0.1)
    await observe(redis, seen(1))
    await add_clients(redis, "digits", 1, {"control": {"a", "b", "c"}, "challenger": {"d"}})
    again = await write_split(redis, "digits", msgspec.structs.replace(first, experiment="again"))
    evidence = await read_evidence(redis, "digits", again)
    assert (len(evidence.stages), evidence.outcomes) == (1, {})
    assert evidence.present.control.clients == 0, "a sample ratio that was wrong is left behind"


async def test_what_was_counted_of_the_arms(redis: Redis) -> None:
    split = await ramp(redis, 0.1, 0.2)
    counts = {
        ("control", "v1", "evidence.1.rows"): 7,
        ("challenger", "v2", "evidence.2.requests"): 5,
        ("challenger", "v2", "evidence.2.failures"): 2,
        ("challenger", "v2", "evidence.2.failures|7|y"): 2,
        ("challenger", "v2", "evidence.2.failures|7|n"): 5,
        ("champion", "v1", "evidence.2.rows"): 80,
        ("champion", "v1", "evidence.2.shadowed"): 60,
        ("control", "v1", "evidence.1.shadowed"): 40,
        ("control", "v1", "evidence.1.disagreed"): 4,
    }
    await add_traffic(redis, "digits", counts, Worker(id="a", revision=2, variants={}))  # type: ignore[arg-type]
    await add_clients(redis, "digits", 2, {"challenger": {"a", "b"}})
    evidence = await read_evidence(redis, "digits", split)
    assert (evidence.stages[0].control.rows, evidence.stages[1].outside) == (7, 80)
    challenger = evidence.present.challenger
    assert (challenger.clients, challenger.requests, challenger.failures) == (2, 5, 2)
    assert evidence.outcomes["failures"].challenger.sums == [0, 0, 2, 5]
    assert evidence.outcomes["failures"].challenger.clients == 2
    assert evidence.disagreements == Disagreements(shadowed=100, disagreed=4)


async def test_the_last_decision_on_a_disagreement_counts(redis: Redis) -> None:
    split = await ramp(redis, 0.1)
    first, second = (Decided(cursor=at, revision=1, right=right, pi=0.5) for at, right in ((9, 1), (5, -1)))
    await add_decisions(redis, "digits", {"a": first, "b": second, "c": second})
    await add_decisions(redis, "digits", {"c": None})
    found = (await read_evidence(redis, "digits", split)).disagreements
    assert found.labelled == (Labelled(-1, 0.5), Labelled(1, 0.5)), "in the order in which they were decided"
    assert (found.shadowed, found.disagreed) == (2, 2), "what is labelled was seen"
    assert EVIDENCE_KEPT_S - 5 < await redis.ttl(NAMES.disagreements) <= EVIDENCE_KEPT_S


async def test_traffic_is_looked_at_in_spans_of_the_present_stage(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = await ramp(redis, 0.1)
    began = int(time.time()) // SPAN_S * SPAN_S
    clock: dict[str, Any] = {"now": 0.0}
    for each in (traffic_module, module):
        monkeypatch.setattr(each, "time", SimpleNamespace(time=lambda: clock["now"]))
    for span, rows in enumerate((5, 100, 90, 3), start=0):
        clock["now"] = began + span * SPAN_S + 10.0
        counts = {("challenger", "v2", "predictions"): rows, ("champion", "v1", "predictions"): 1000}
        await add_traffic(redis, "digits", counts, Worker(id="a", revision=1, variants={}))  # type: ignore[arg-type]
    assert (await read_evidence(redis, "digits", split)).traffic == (100, 90), "what is not over says nothing"
    clock["now"] += SPAN_S
    evidence = await read_evidence(redis, "digits", split)
    assert (evidence.traffic, evidence.has_dried_up) == ((100, 90, 3), True)


def test_groups_know_the_variance_of_clients() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(40):
        arms = []
        for _ in range(2):
            own = rng.beta(4, 1, 5_000)
            rows = rng.integers(1, 30, (5_000, 2))
            vectors = np.stack(
                [rng.binomial(rows[:, 0], own), rows[:, 0], rng.binomial(rows[:, 1], own), rows[:, 1]]
            )
            groups = np.zeros((GROUPS, 4))
            np.add.at(groups, rng.integers(0, GROUPS, 5_000), vectors.T.astype(float))
            arms.append((as_arm(sum_clients(vectors.T.astype(float))), as_arm(sum_groups(5_000, groups))))
        exact, grouped = (difference(arms[0][at], arms[1][at], is_share=True) for at in (0, 1))
        assert grouped.mean == pytest.approx(float(exact.mean))
        found.append(float(grouped.variance / exact.variance))
    assert np.mean(found) == pytest.approx(1, abs=0.04)
    assert np.std(found) < 0.12
