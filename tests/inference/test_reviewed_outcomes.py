"""What people decide on rows of both arms decides a trial, as far as everything is decided."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rollout.config import Settings
from rollout.heads import Truth
from rollout.inference import intake as module
from rollout.inference.controller import Controller
from rollout.inference.intake import Intake
from rollout.judge.policy import REVIEWED, Policy
from rollout.keys import Keys
from rollout.review import actions
from rollout.review.forget import forget_client
from rollout.review.item import ReviewItem
from rollout.review.queue import add_items
from rollout.review.undecided import undecided_since
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.routing.trial_evidence import read_evidence
from rollout.routing.trial_reviews import read_until
from rollout.store import Redis
from tests.review.decisions import decide
from tests.review.items import make_item
from tests.routing.test_trial_evidence import TRIAL

THREE, EIGHT = Truth(label="3"), Truth(label="8")


def item_of(number: int, arm: str, **changes: Any) -> ReviewItem:
    return make_item(number, arm=arm, at=f"2026-11-22T10:00:{number:02}.000Z", **changes)


async def begin(redis: Redis) -> tuple[Split, Intake]:
    split = await write_split(redis, "digits", msgspec.structs.replace(TRIAL, policy=Policy(compare="reviews")))
    return split, Intake(redis, "digits", lambda: item_of(0, "control").head)


async def counted(redis: Redis, split: Split, intake: Intake) -> tuple[list[float], list[float]] | None:
    await intake.look_how_far(split)
    await intake.gather()
    found = (await read_evidence(redis, "digits", split)).outcomes.get(REVIEWED)
    return None if found is None else (found.control.sums, found.challenger.sums)


async def test_rows_count_up_to_the_first_that_waits(redis: Redis) -> None:
    split, intake = await begin(redis)
    audit: dict[str, Any] = {"reason": "audit", "pi": 0.25}
    items = [
        item_of(1, "control"),
        item_of(2, "challenger", version="v2"),
        item_of(3, "control", **audit),
        item_of(4, "challenger", version="v2", **audit),
        item_of(5, "challenger", version="v2"),
        item_of(6, "control"),
        # These say nothing of an arm, decided or not.
        item_of(0, "champion"),
        item_of(7, "control", pinned=True, **audit),
        item_of(8, "control", reason="disagreement", other={"version": "v2", "label": "8"}),
    ]
    await add_items(redis, items, 99)
    said = {one.id: THREE for one in items[:4]} | {items[1].id: EIGHT, items[5].id: EIGHT, items[7].id: EIGHT}
    await decide(redis, said)
    assert await counted(redis, split, intake) == ([5.0, 5.0], [4.0, 5.0]), "the sixth waits for the fifth"
    await decide(redis, {items[4].id: THREE, items[8].id: EIGHT})
    assert await counted(redis, split, intake) == ([5.0, 6.0], [5.0, 6.0])
    await forget_client(redis, "digits", items[1].client_id, 60)
    assert await counted(redis, split, intake) == ([5.0, 6.0], [5.0, 5.0])


async def test_what_a_limit_keeps_out_stops_it(redis: Redis) -> None:
    split, intake = await begin(redis)
    audits = [item_of(number, arm, reason="audit") for number, arm in ((1, "control"), (2, "challenger"))]
    await add_items(redis, audits, 99)
    await decide(redis, {one.id: THREE for one in audits})
    assert await counted(redis, split, intake) == ([1.0, 1.0], [1.0, 1.0])
    before = await read_until(redis, "digits")
    await add_items(redis, [item_of(3, "control")], 0)
    await counted(redis, split, intake)
    after = await read_until(redis, "digits")
    assert before is not None
    assert after is not None
    assert (after.is_whole, after.until) == (False, before.until)


async def test_what_nobody_saw_in_time_stops_it(redis: Redis) -> None:
    split, intake = await begin(redis)
    items = [item_of(number, arm, reason="audit") for number, arm in ((1, "control"), (2, "challenger"))]
    await add_items(redis, [*items, item_of(3, "control")], 99)
    await decide(redis, {one.id: THREE for one in items})
    assert await counted(redis, split, intake) == ([1.0, 1.0], [1.0, 1.0])
    before = await read_until(redis, "digits")
    await redis.delete(Keys("digits").review(item_of(3, "control").id, ":inputs"))
    assert not (await actions.claim(redis, "digits", "Ana")).items, "it is retired"
    await counted(redis, split, intake)
    after = await read_until(redis, "digits")
    assert before is not None
    assert after is not None
    assert (after.is_whole, after.until) == (False, before.until)


async def test_what_somebody_skipped_does_not(redis: Redis) -> None:
    split, intake = await begin(redis)
    await add_items(redis, [item_of(1, "control")], 99)
    (leased,) = (await actions.claim(redis, "digits", "Ana")).items
    await actions.skip(redis, "digits", leased.item.id, leased.token, "unreadable")
    await counted(redis, split, intake)
    until = await read_until(redis, "digits")
    assert until is not None
    assert until.is_whole


async def test_what_is_decided_during_a_look_is_there_when_it_counts(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, _ = await begin(redis)
    audits = [item_of(number, arm, reason="audit") for number, arm in ((1, "control"), (2, "challenger"))]
    await add_items(redis, [*audits, item_of(3, "control")], 99)
    await decide(redis, {one.id: THREE for one in audits})

    async def decide_first(*of: Any) -> int | None:
        await decide(redis, {item_of(3, "control").id: EIGHT})
        return await undecided_since(*of)

    monkeypatch.setattr(module, "undecided_since", decide_first)
    await Controller(redis, "digits", Settings(), lambda: audits[0].head).look()
    assert (await read_evidence(redis, "digits", split)).outcomes[REVIEWED].control.sums == [1.0, 2.0]


async def test_rows_on_their_way_are_waited_for(redis: Redis) -> None:
    split, intake = await begin(redis)
    await intake.look_how_far(split)
    until = await read_until(redis, "digits")
    assert until is not None
    seconds, micros = await redis.time()
    assert until.until <= (seconds + micros / 1e6 - module.UNDER_WAY_S) * 1000 + 1
    assert await redis.ttl(Keys("digits").reviewed_until) > 0
