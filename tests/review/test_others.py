"""Rows that are in review for another reason and that versions disagree on: they are for the trial as well."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from rollout.heads import Truth
from rollout.inference.intake import Intake
from rollout.judge.disagreements import Labelled
from rollout.judge.policy import Policy
from rollout.keys import Keys
from rollout.review import actions
from rollout.review.item import ReviewItem
from rollout.review.label_studio import to_task
from rollout.review.others import keep_other
from rollout.review.queue import add_items, list_items
from rollout.routing.splits import write_split
from rollout.routing.trial_evidence import read_evidence
from rollout.routing.trial_labels import read_trial_labels
from rollout.store import Redis
from tests.review.decisions import decide
from tests.review.items import make_item
from tests.routing.test_trial_evidence import TRIAL

OTHER = {"version": "v2", "label": "8", "confidence": 0.9, "scores": {"3": 0.1, "8": 0.9}}
EIGHT, THREE = Truth(label="8"), Truth(label="3")


def disagreeing(number: int) -> ReviewItem:
    """A row as it would be a disagreement."""
    return make_item(number, reason="disagreement", other=OTHER, pi=0.5)


async def order(redis: Redis) -> list[ReviewItem]:
    return [item async for item, _ in list_items(redis, "digits", {})]


@pytest.mark.parametrize("scores", [{"3": 0.4, "8": 0.35}, {"3": 0.59, "8": 0.01}], ids=["unsure", "almost sure"])
async def test_labels_that_are_there_first_speak_for_the_rest(redis: Redis, scores: dict[str, float]) -> None:
    """Where the champion is unsure the challenger is always right; elsewhere it is always wrong: as often."""
    split = await write_split(redis, "digits", TRIAL)
    each, first = 150, 100
    unsure = [make_item(number, scores=scores) for number in range(each)]
    sure = [disagreeing(number) for number in range(each, 2 * each)]
    await add_items(redis, unsure + sure, 999)
    for number in range(each):
        await keep_other(redis, disagreeing(number), 60)
    labelled = (await order(redis))[:first]
    await decide(redis, {item.id: EIGHT if item.reason == "low_confidence" else THREE for item in labelled})
    await Intake(redis, "digits", lambda: labelled[0].head).gather()
    found = (await read_evidence(redis, "digits", split)).disagreements.labelled
    assert len(found) == first
    assert set(found) == {Labelled(1, 0.5), Labelled(-1, 0.5)}
    mean = sum(one.right for one in found) / first
    assert abs(mean) < 3 / math.sqrt(first), "all of them together have a mean of 0"


async def test_what_the_challenger_said_later_is_part_of_the_item(redis: Redis) -> None:
    await add_items(redis, [make_item(1), make_item(2)], 9)
    await keep_other(redis, disagreeing(2), 60)
    alone, both = sorted(await order(redis), key=lambda item: item.client_id)
    assert (both.trial, both.reason) == ("v2", "low_confidence")
    assert both.other == {**OTHER, "pi": 0.5}
    assert sorted(answer["label"] for answer in both.said) == ["3", "8"]
    assert (alone.trial, alone.said) == (None, [alone.answer])
    claimed = await actions.claim(redis, "digits", "ada", 2)
    assert {leased.item.key: leased.item.trial for leased in claimed.items} == {"key-1": None, "key-2": "v2"}


async def test_an_audit_keeps_its_place_and_what_somebody_has_is_left_to_them(redis: Redis) -> None:
    await add_items(redis, [make_item(1), make_item(2, reason="audit", pi=0.01), make_item(3)], 9)
    (leased,) = (await actions.claim(redis, "digits", "ada")).items
    await keep_other(redis, disagreeing(2), 60)
    await keep_other(redis, disagreeing(int(leased.item.client_id[-1])), 60)
    found = await order(redis)
    assert [item.reason for item in found] == ["low_confidence", "audit"]
    assert found[1].trial == "v2"
    await actions.resolve(redis, "digits", leased.item.id, leased.token, EIGHT)


def test_a_task_of_label_studio_does_not_say_what_the_champion_said() -> None:
    assert to_task(make_item(1))["predictions"]
    assert to_task(disagreeing(1))["predictions"] == []


def test_nobody_can_tell_by_the_order_which_version_said_what() -> None:
    first = [disagreeing(number).said[0]["label"] for number in range(400)]
    assert 140 < first.count("8") < 260


@pytest.mark.parametrize(
    ("compare", "says"),
    [
        ("disagreements", "more labels are expected until a verdict on v2; 3 of 40 disagreements are labelled"),
        ("outcomes", "outcomes decide the trial of v2; 3 of 40 disagreements are labelled"),
        ("reviews", "the trial of v2 is decided by what comes to review, as far as all of it is decided"),
    ],
)
async def test_what_the_trial_wants_of_reviewers(redis: Redis, compare: Any, says: str) -> None:
    await write_split(redis, "digits", msgspec.structs.replace(TRIAL, policy=Policy(compare=compare)))
    items = [disagreeing(number) for number in range(3)]
    await add_items(redis, items, 9)
    await decide(redis, {item.id: EIGHT for item in items})
    await redis.hset(Keys("digits").evidence(1), mapping={"champion|shadowed": 1_000, "champion|disagreed": 40})
    await Intake(redis, "digits", lambda: items[0].head).gather()
    found = await read_trial_labels(redis, "digits")
    assert found is not None
    assert found.in_words().endswith(says)
    assert (found.wanted is None) == (compare != "disagreements")
