"""From reports and decisions to evidence: only of the trial, each once, and what is taken back is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import msgspec
import pytest

from rollout.config import Settings
from rollout.heads import Classification, Regression, Truth
from rollout.inference.controller import Controller
from rollout.inference.intake import Intake
from rollout.judge.policy import Guardrails, Policy
from rollout.keys import Keys
from rollout.review import actions
from rollout.review.forget import forget_client
from rollout.review.others import keep_other
from rollout.review.outcomes import record_outcomes
from rollout.review.predictions import record_predictions
from rollout.review.queue import add_items
from rollout.routing.splits import write_split
from rollout.routing.trial_evidence import read_evidence
from rollout.store import Redis
from tests.review import decisions
from tests.review.items import make_item
from tests.review.test_outcomes import DAY_S, report, waiting
from tests.routing.test_trial_evidence import TRIAL

NAMES = Keys("digits")
DIGITS = Classification(labels=["3", "8"])
TRIAL_1 = msgspec.structs.replace(TRIAL, revision=1)
GUARDED = Policy(guardrails=Guardrails(numbers={"basket_eur": 0.5}))
OTHER = {"version": "v2", "label": "8", "confidence": 0.9, "scores": {"3": 0.1, "8": 0.9}}


async def gathered(redis: Redis) -> dict[str, list[float]]:
    """Gathers, and returns right answers and rows of each arm."""
    await Intake(redis, "digits", lambda: DIGITS).gather()
    outcomes = (await read_evidence(redis, "digits", TRIAL_1)).outcomes
    if not outcomes:
        return {}
    return {"control": outcomes["accuracy"].control.sums, "challenger": outcomes["accuracy"].challenger.sums}


@pytest.fixture(autouse=True)
async def trial(redis: Redis) -> None:
    await write_split(redis, "digits", TRIAL)


async def predict(redis: Redis, *numbers: int, **changes: Any) -> None:
    await record_predictions(
        redis, "digits", [waiting(number, **({"revision": 1} | changes)) for number in numbers], 7 * DAY_S
    )


async def tell(redis: Redis, number: int, label: str | None = "3", **changes: Any) -> None:
    await record_outcomes(redis, "digits", [report(number, label, **changes)], 30 * DAY_S)


async def test_outcomes_count_once_in_either_order(redis: Redis) -> None:
    await predict(redis, 1, 2)
    await predict(redis, 3, arm="control", version="v1")
    await tell(redis, 1)
    await tell(redis, 3)
    await tell(redis, 4, label="8")
    assert await gathered(redis) == {"control": [1, 1], "challenger": [1, 1]}
    await predict(redis, 4)
    await tell(redis, 2, label="8")
    await tell(redis, 1)
    assert await gathered(redis) == {"control": [1, 1], "challenger": [1, 3]}
    await redis.delete(NAMES.gathered("outcomes"))
    assert await gathered(redis) == {"control": [1, 1], "challenger": [1, 3]}, "nothing counts twice"


async def test_a_value_is_right_within_its_interval(redis: Redis) -> None:
    await predict(redis, 1, 2, answer={"value": 5.0, "interval": [4.0, 6.0]})
    await tell(redis, 1, label=None, value=5.9)
    await tell(redis, 2, label=None, value=6.1)
    await Intake(redis, "digits", Regression).gather()
    outcomes = (await read_evidence(redis, "digits", TRIAL_1)).outcomes
    assert outcomes["accuracy"].challenger.sums == [1, 2]


async def test_numbers_are_compared_in_their_own_unit(redis: Redis) -> None:
    await predict(redis, 1, 2)
    await tell(redis, 1, label=None, numbers={"basket_eur": 12.5})
    await tell(redis, 2, numbers={"basket_eur": 7.5})
    await Intake(redis, "digits", lambda: DIGITS).gather(GUARDED.numbers)
    outcomes = (await read_evidence(redis, "digits", msgspec.structs.replace(TRIAL_1, policy=GUARDED))).outcomes
    assert outcomes["accuracy"].challenger.sums == [1, 1]
    basket = outcomes["basket_eur"]
    assert (basket.challenger.sums, basket.challenger.clients, basket.is_share) == ([20, 2], 2, False)


async def test_of_numbers_whose_names_callers_choose_those_count_that_the_policy_asks_about(redis: Redis) -> None:
    await predict(redis, *range(10))
    for number in range(10):
        await tell(redis, number, numbers={f"n{number}_{name}": 1.0 for name in range(19)} | {"basket_eur": 1.0})
    await Intake(redis, "digits", lambda: DIGITS).gather(GUARDED.numbers)
    fields: dict[Any, Any] = await redis.hgetall(NAMES.evidence(1))
    assert {field.split(b"|")[1] for field in fields} == {b"accuracy", b"basket_eur"}
    assert (await read_evidence(redis, "digits", TRIAL_1)).outcomes.keys() == {"accuracy"}, "of a policy before"


async def test_what_is_no_evidence_does_not_count(redis: Redis) -> None:
    await predict(redis, 1, pinned=True)
    await predict(redis, 2, arm="champion", version="v1", pi=0.1)
    for number in (1, 2, 3):
        await tell(redis, number)
    assert await gathered(redis) == {}


async def test_many_outcomes_are_gathered(redis: Redis) -> None:
    for start in range(0, 450, 50):
        numbers = range(start, start + 50)
        await predict(redis, *numbers)
        await record_outcomes(redis, "digits", [report(number) for number in numbers], 30 * DAY_S)
    assert (await gathered(redis))["challenger"] == [450, 450]


async def disagreements(redis: Redis) -> list[tuple[float, float]]:
    await Intake(redis, "digits", lambda: DIGITS).gather()
    found = (await read_evidence(redis, "digits", TRIAL_1)).disagreements
    return [(one.right, one.pi) for one in found.labelled]


async def test_labels_of_disagreements_count(redis: Redis) -> None:
    shared: dict[str, Any] = {"reason": "disagreement", "pi": 0.2, "other": OTHER}
    items = [make_item(number, **shared) for number in range(4)]
    items.append(make_item(5, arm="champion", pi=0.5))  # in review, since the champion was unsure
    items.append(make_item(6))
    await add_items(redis, items, 99)
    await keep_other(redis, make_item(5, reason="disagreement", pi=0.2, other=OTHER), 60)
    labels = dict(zip((item.id for item in items), ("8", "3", "5", "8", "8", "8"), strict=False))
    await decisions.decide(redis, {item_id: Truth(label=label) for item_id, label in labels.items()})
    found = await disagreements(redis)
    assert found == [(1, 0.2), (-1, 0.2), (0, 0.2), (1, 0.2), (1, 0.1)]
    await forget_client(redis, "digits", "client-0", 60)
    await forget_client(redis, "digits", "client-5", 60)
    assert await disagreements(redis) == [(-1, 0.2), (0, 0.2), (1, 0.2)]
    assert not await redis.exists(NAMES.other(items[4].id))


async def test_a_label_that_is_taken_back_is_gone(redis: Redis) -> None:
    await add_items(redis, [make_item(1, reason="disagreement", other=OTHER)], 9)
    (leased,) = (await actions.claim(redis, "digits", "ada")).items
    await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label="8"))
    assert await disagreements(redis) == [(1, 1.0)]
    again = await actions.undo(redis, "digits", leased.item.id, leased.token)
    assert await disagreements(redis) == []
    await actions.resolve(redis, "digits", again.item.id, again.token, Truth(label="3"))
    assert await disagreements(redis) == [(-1, 1.0)]


async def test_one_worker_gathers_and_another_takes_over(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (Controller(redis, "digits", Settings(), lambda: DIGITS) for _ in range(2))
    looks: list[Intake] = []

    async def gather(intake: Intake, _: Collection[str]) -> None:
        looks.append(intake)

    monkeypatch.setattr(Intake, "gather", gather)
    for controller in (one, other, one):
        await controller.look()
    assert looks == [one._intake] * 2
    assert 0 < await redis.pttl(NAMES.controller_lock) <= 5_000
    await redis.pexpireat(NAMES.controller_lock, 1)
    await other.look()
    await one.look()
    assert looks[2:] == [other._intake]
    running = asyncio.create_task(other.run())
    await asyncio.sleep(0.1)
    running.cancel()
    await asyncio.wait([running])
    assert not await redis.exists(NAMES.controller_lock), "who ends leaves it to others at once"
