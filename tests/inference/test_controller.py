"""The controller: what a policy allows happens by itself, once, whoever dies, and a person's change stands."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rollout import metrics
from rollout.config import Settings
from rollout.errors import StoreUnavailableError
from rollout.heads import Classification
from rollout.inference import controller as module
from rollout.inference.controller import Controller
from rollout.judge.policy import Act, Policy
from rollout.judge.verdict import Verdict
from rollout.keys import Keys
from rollout.lease import Lease
from rollout.routing import by_itself
from rollout.routing.assignment import Arm
from rollout.routing.by_itself import CONTROLLER, COOLDOWN_S, carry_out_act, next_act
from rollout.routing.changes import ramp
from rollout.routing.looks import is_due, read_looks
from rollout.routing.split import Split
from rollout.routing.splits import read_history, read_quarantine, read_split, write_split
from rollout.routing.traffic import EVIDENCE_KEPT_S, Worker, add_traffic
from rollout.routing.trial_evidence import Decided, add_decisions
from rollout.routing.verdict import read_verdict
from rollout.store import Redis
from tests.bundle.test_signing import make_keys
from tests.inference.killed import ramp_up
from tests.routing.trials import POLICY, SPLIT, STAGES, feed

DIGITS = Classification(labels=["3", "8"])
SETTINGS = Settings()
STEPS = Verdict(verdict="hold", reason="labels_missing", detail="d", next_share=0.05)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the workers to follow."""
    monkeypatch.setattr(by_itself, "COOLDOWN_S", 0.0)


def controller(redis: Redis) -> Controller:
    return Controller(redis, "digits", SETTINGS, lambda: DIGITS)


async def current(redis: Redis) -> Split:
    split = await read_split(redis, "digits")
    assert split is not None
    return split


def judged(**fields: Any) -> Verdict:
    return msgspec.structs.replace(STEPS, **fields)


@pytest.mark.parametrize(
    ("allowed", "verdict", "seconds", "act"),
    [
        (("step", "promote", "rollback"), judged(), COOLDOWN_S, "step"),
        (("step", "promote", "rollback"), judged(), COOLDOWN_S - 1, None),
        (("promote", "rollback"), judged(), COOLDOWN_S, None),
        (("step", "promote"), judged(verdict="promote"), COOLDOWN_S, "promote"),
        (("step",), judged(verdict="promote"), COOLDOWN_S, "step"),
        (("promote",), judged(verdict="promote"), COOLDOWN_S - 1, None),
        (("step", "promote", "rollback"), judged(verdict="rollback"), 0, "rollback"),
        (("step", "promote"), judged(verdict="rollback"), COOLDOWN_S, None),
        (("step", "promote", "rollback"), judged(next_share=None), COOLDOWN_S, None),
        ((), judged(verdict="rollback"), COOLDOWN_S, None),
    ],
)
def test_only_what_the_policy_allows_happens(
    allowed: tuple[Act, ...], verdict: Verdict, seconds: float, act: Act | None
) -> None:
    split = msgspec.structs.replace(SPLIT, policy=Policy(by_itself=allowed))
    assert next_act(split, verdict, seconds) == act
    assert next_act(msgspec.structs.replace(split, policy=None), verdict, seconds) is None
    assert next_act(Split(champion="v1"), verdict, seconds) is None


async def test_a_trial_from_one_percent_to_champion(redis: Redis, at_once: None) -> None:
    split = await write_split(redis, "digits", SPLIT)
    one, other = controller(redis), controller(redis)
    for share in STAGES:
        assert (await current(redis)).share == share
        for looking in (one, other):
            assert await looking.look() is None, "without clients nothing happens"
        await feed(redis, split.revision)
        if share == STAGES[-1]:
            break
        # Which of them has the lease depends on how long all this took.
        assert sorted([await looking.look() or "" for looking in (one, other, one, other)]) == [
            "",
            "",
            "",
            "step",
        ]
        split = await current(redis)
    for looking in (one, other):
        assert await looking.look() is None, "it is the last stage, and nobody knows who is right"
    await feed(redis, split.revision, rows=50, accuracy=0.9, better=0.02)
    assert "promote" in [await looking.look() for looking in (one, other)]
    done = await current(redis)
    assert (done.champion, done.challenger, done.previous, done.policy) == ("v2", None, "v1", None)
    history = await read_history(redis, "digits")
    assert [one.share for one in history] == [*STAGES, 0]
    assert {one.by for one in history[1:]} == {CONTROLLER}
    assert "accuracy differs from control's by +2.00 points" in history[-1].why
    for change in history[1:]:
        assert change.verdict is not None
        assert {found["question"] for found in change.verdict["findings"]} == {
            "accuracy",
            "failures",
            "fallbacks",
        }
    assert history[0].verdict is None
    looks = await read_looks(redis, "digits", 1)
    assert {look.share for look in looks} == set(STAGES)
    assert looks[-1].verdict == "promote"


async def test_without_the_lease_none_comes_twice_either(
    redis: Redis, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hold(_: Lease) -> bool:
        return True

    monkeypatch.setattr(Lease, "hold", hold)
    split = await write_split(redis, "digits", SPLIT)
    controllers = [controller(redis) for _ in range(5)]
    for _ in STAGES[1:]:
        await feed(redis, split.revision)
        acts = await asyncio.gather(*(one.look() for one in controllers))
        assert acts.count("step") == 1
        split = await current(redis)
    assert [one.share for one in await read_history(redis, "digits")] == list(STAGES)


async def test_a_challenger_that_fails_is_back_within_seconds_and_stays_out(redis: Redis) -> None:
    await write_split(redis, "digits", SPLIT)
    await feed(redis, 1, failures=0.3)
    before = metrics.ACTS.labels("digits", "rollback")._value.get()
    assert await controller(redis).look() == "rollback", "it waits for no cooldown"
    assert metrics.ACTS.labels("digits", "rollback")._value.get() == before + 1
    split = await current(redis)
    assert (split.champion, split.challenger, split.by) == ("v1", None, CONTROLLER)
    assert "surely more than 2.0% and more than control" in split.why
    assert (await read_quarantine(redis, "digits"))["two"].by == CONTROLLER


async def test_a_challenger_that_is_wrong_more_often_is_rolled_back(redis: Redis) -> None:
    await write_split(redis, "digits", SPLIT)
    await feed(redis, 1, rows=50, accuracy=0.9, better=-0.1)
    assert await controller(redis).look() == "rollback"
    assert (await current(redis)).why.startswith("accuracy differs from control's by -10.00 points")


async def test_without_a_policy_nothing_happens(redis: Redis, at_once: None) -> None:
    await write_split(redis, "digits", msgspec.structs.replace(SPLIT, policy=None))
    await feed(redis, 1, rows=100, failures=0.3)
    assert await controller(redis).look() is None
    assert (await current(redis)).revision == 1


async def test_a_trial_that_begins_in_shadow_goes_on_to_its_first_clients(redis: Redis, at_once: None) -> None:
    unseen = msgspec.structs.replace(SPLIT, share=0.0, shadow=0.5)
    await write_split(redis, "digits", unseen)
    assert await controller(redis).look() is None, "it has scored nothing"
    counts: dict[tuple[Arm, str, str], int] = {
        ("champion", "v1", "evidence.1.shadowed"): 500,
        ("champion", "v1", "evidence.1.unscored"): 300,
    }
    await add_traffic(redis, "digits", counts, Worker(id="a", revision=1, variants={}))
    looking = controller(redis)
    await redis.delete(Keys("digits").controller_lock)
    assert await looking.look() is None, "it fails"
    counts = {("champion", "v1", "evidence.1.shadowed"): 1_000_000}
    await add_traffic(redis, "digits", counts, Worker(id="a", revision=1, variants={}))
    assert await looking.look() == "step"
    split = await current(redis)
    assert (split.share, split.shadow, split.by) == (STAGES[0], 0.5, CONTROLLER)
    assert split.why == "the shadow had its time and its rows, and nothing speaks against the next stage"
    assert split.verdict is not None
    assert split.verdict["reason"] == "in_shadow"
    await feed(redis, split.revision)
    assert await looking.look() == "step", "what was before in shadow is no stage that misses clients"
    assert (await current(redis)).share == STAGES[1]


async def test_evidence_lives_as_long_as_its_trial(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys("digits")
    split = await write_split(redis, "digits", SPLIT)
    await feed(redis, 1, rows=50, accuracy=0.9)
    await add_decisions(redis, "digits", {"a": Decided(cursor=1, revision=1, right=1, pi=1.0)})
    await write_split(redis, "digits", ramp(split, 0.3))
    names = [
        keys.disagreements,
        keys.evidence(1),
        *(keys.clients(1, arm, name) for arm in ("control", "challenger") for name in ("", "accuracy")),
    ]
    for name in names:
        assert await redis.expire(name, 60)
    looking = controller(redis)
    await looking.look()
    for name in names:
        assert await redis.ttl(name) > EVIDENCE_KEPT_S - 60, name
        await redis.expire(name, 60)
    await looking.look()
    assert await redis.ttl(names[0]) <= 60, "not at every look"
    monkeypatch.setattr(module, "RENEW_EVERY_S", -1.0)
    await write_split(redis, "digits", (await current(redis)).without_trial())
    await looking.look()
    assert await redis.ttl(names[0]) <= 60, "the trial is over, and it goes"


async def test_a_change_of_a_person_wins(redis: Redis, at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    split = await write_split(redis, "digits", SPLIT)
    await feed(redis, 1)

    async def change(*_: Any, **__: Any) -> None:
        await write_split(redis, "digits", ramp(split, 0.3))

    monkeypatch.setattr(Controller, "_keep", change)
    assert await controller(redis).look() is None
    assert [one.share for one in await read_history(redis, "digits")] == [0.01, 0.3]


async def test_where_signatures_are_asked_for_nothing_unsigned_gets_more_clients(
    redis: Redis, at_once: None, bundles: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await write_split(redis, "digits", msgspec.structs.replace(SPLIT, digests={}))
    await feed(redis, 1)
    strict = msgspec.structs.replace(SETTINGS, public_key=make_keys(tmp_path, "ours")[1])
    assert await Controller(redis, "digits", strict, lambda: DIGITS).look() is None
    assert (await current(redis)).share == STAGES[0]
    assert "it has no signature" in caplog.text


async def test_counters_that_go_back_hold_until_they_are_where_they_were(redis: Redis, at_once: None) -> None:
    slow = msgspec.structs.replace(SPLIT, policy=msgspec.structs.replace(POLICY, least_s=0, least_clients=300))
    await write_split(redis, "digits", slow)
    await feed(redis, 1)
    assert await controller(redis).look() is None
    requests = Keys("digits").evidence(1), "challenger|requests"
    await redis.hincrby(*requests, -5)
    for _ in range(2):
        await redis.delete(Keys("digits").controller_lock)
        await controller(redis).look()
        assert (await read_looks(redis, "digits", 1))[-1].reason == "impossible", "whoever takes over knows it"
    split = await current(redis)
    asked = await read_verdict(redis, "digits", split)
    assert (asked.reason, asked.detail) == (
        "impossible",
        "requests of the challenger in stage 1 went from 2,560 back to 2,555",
    )
    await redis.hincrby(*requests, 5)
    assert (await read_verdict(redis, "digits", split)).reason != "impossible"


async def test_without_redis_it_goes_on(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    looks = 0

    async def look(_: Controller) -> None:
        nonlocal looks
        looks += 1
        raise StoreUnavailableError("gone") if looks % 2 else ValueError("a bug")

    monkeypatch.setattr(Controller, "look", look)
    task = asyncio.create_task(controller(redis).run())
    await asyncio.sleep(0.3)
    assert looks > 5
    task.cancel()
    await asyncio.wait([task])


def test_looks_are_few_however_long_a_trial_lasts() -> None:
    kept, last = 0, 0.0
    for age in range(0, 30 * 86_400, 5):
        if is_due(age, age - last):
            kept, last = kept + 1, age
    assert 1_000 < kept < 2_000


async def test_killed_at_every_step_no_step_comes_twice(redis: Redis, valkey_url: str) -> None:
    shares = tuple(round(0.01 * step, 2) for step in range(1, 13))
    found = await ramp_up(redis, valkey_url, shares, kill_every=3, seed=7)
    assert found.is_each_once(shares), found.history
    assert found.killed == 3


async def test_whoever_dies_between_the_change_and_anything_else_leaves_it_whole(
    redis: Redis, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_split(redis, "digits", SPLIT)
    await feed(redis, 1)
    real = carry_out_act

    async def die(*given: Any) -> Split:
        await real(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "carry_out_act", die)
    with pytest.raises(KeyboardInterrupt):
        await controller(redis).look()
    monkeypatch.setattr(module, "carry_out_act", real)
    await redis.delete(Keys("digits").controller_lock)
    assert await controller(redis).look() is None
    assert [one.share for one in await read_history(redis, "digits")] == [0.01, 0.05]
