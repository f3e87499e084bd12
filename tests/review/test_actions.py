"""What reviewers do: one item for one person, in order, and no decision is lost or overwritten."""

from __future__ import annotations

import asyncio
import math

import msgspec
import pytest

from rollout.errors import InvalidRequestError, LeaseLostError, UnknownItemError
from rollout.heads import Truth
from rollout.keys import Keys
from rollout.review import actions
from rollout.review.actions import Claim, Leased
from rollout.review.counts import read_counts
from rollout.review.item import ReviewItem, item_id
from rollout.review.offers import SPARE
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.review.queue import add_items, list_items, read_item
from rollout.review.records import read_changes
from rollout.review.state import Event, State
from rollout.review.stats import review_stats
from rollout.store import Redis
from tests.review.items import make_guess, make_item

SEVEN, NINE = Truth(label="3"), Truth(label="8")


async def fill(redis: Redis, *items: ReviewItem) -> None:
    assert all(await add_items(redis, items or [make_item(number) for number in range(6)], 1000))


async def claim_one(redis: Redis, reviewer: str, *, escalated: bool = False) -> Leased:
    (leased,) = (await actions.claim(redis, "digits", reviewer, escalated=escalated)).items
    return leased


async def events(redis: Redis) -> list[tuple[str, str, State, State]]:
    found: list[Event] = [event async for record in read_changes(redis, "digits") for event in record.events]
    return [(event.did, event.who, event.before, event.after) for event in found]


async def test_nobody_gets_what_another_has(redis: Redis) -> None:
    await fill(redis)
    claims = await asyncio.gather(*(actions.claim(redis, "digits", f"r-{number}", 2) for number in range(4)))
    ids = [leased.item.id for claim in claims for leased in claim.items]
    assert len(ids) == len(set(ids)) == 6
    left = await actions.claim(redis, "digits", "late")
    assert left == Claim(items=[], open=0, leased_by_others=6, escalated=0)


async def test_ones_own_lease_comes_back_first(redis: Redis) -> None:
    await fill(redis)
    first = await actions.claim(redis, "digits", "ada", 2)
    again = await actions.claim(redis, "digits", "ada", 3)
    assert [one.token for one in again.items[:2]] == [one.token for one in first.items]
    assert again.items[0].until > first.items[0].until
    assert len({one.item.id for one in again.items}) == 3


async def test_inputs_and_scores_come_along(redis: Redis) -> None:
    await fill(redis, make_item(1))
    leased = await claim_one(redis, "ada")
    assert leased.item == make_item(1)


async def test_an_answer_is_kept_with_its_steps(redis: Redis) -> None:
    await fill(redis, make_item(1))
    leased = await claim_one(redis, "ada")
    work = await actions.resolve(redis, "digits", leased.item.id, leased.token, SEVEN)
    assert (work.state, work.label) == (State.RESOLVED, "3")
    (record,) = [record async for record in read_changes(redis, "digits")]
    assert record.item == make_item(1)
    assert [review.reviewer for review in record.work.reviews] == ["ada"]
    assert await events(redis) == [
        ("claim", "ada", State.OPEN, State.LEASED),
        ("resolve", "ada", State.LEASED, State.RESOLVED),
    ]
    assert (await read_counts(redis, "digits")).states[State.RESOLVED] == {"low_confidence": 1}


async def test_a_lost_lease_overwrites_nothing(redis: Redis) -> None:
    await fill(redis, make_item(1))
    (slow,) = (await actions.claim(redis, "digits", "slow", lease_s=0.02)).items
    await asyncio.sleep(0.03)
    with pytest.raises(LeaseLostError, match="this lease ended at"):
        await actions.resolve(redis, "digits", slow.item.id, slow.token, SEVEN)
    quick = await claim_one(redis, "quick")
    for call in (
        actions.resolve(redis, "digits", slow.item.id, slow.token, SEVEN),
        actions.skip(redis, "digits", slow.item.id, slow.token, "why"),
        actions.escalate(redis, "digits", slow.item.id, slow.token, "why"),
        actions.release(redis, "digits", slow.item.id, slow.token),
        actions.undo(redis, "digits", slow.item.id, slow.token),
    ):
        with pytest.raises(LeaseLostError):
            await call
    work = await actions.resolve(redis, "digits", quick.item.id, quick.token, NINE)
    with pytest.raises(LeaseLostError, match="the item is resolved"):
        await actions.resolve(redis, "digits", slow.item.id, slow.token, SEVEN)
    found = await read_item(redis, "digits", slow.item.id)
    assert found is not None
    assert found[1] == work


@pytest.mark.parametrize("did", ["resolve", "skip", "escalate"])
async def test_a_decision_can_be_taken_back(redis: Redis, did: str) -> None:
    await fill(redis, make_item(1), make_item(2))
    leased = await claim_one(redis, "ada")
    if did == "resolve":
        await actions.resolve(redis, "digits", leased.item.id, leased.token, SEVEN)
    else:
        await getattr(actions, did)(redis, "digits", leased.item.id, leased.token, "cannot tell")
    back = await actions.undo(redis, "digits", leased.item.id, leased.token)
    assert (back.item, back.token) == (leased.item, leased.token)
    work = await actions.resolve(redis, "digits", leased.item.id, leased.token, NINE)
    assert (work.label, [review.label for review in work.reviews]) == ("8", ["8"])
    assert [step[0] for step in await events(redis)] == ["claim", did, "undo", "resolve"]


async def test_a_label_taken_back_is_told_after_the_label(redis: Redis) -> None:
    await fill(redis, make_item(1))
    leased = await claim_one(redis, "ada")
    await actions.resolve(redis, "digits", leased.item.id, leased.token, SEVEN)
    (told,) = [record async for record in read_changes(redis, "digits")]
    await actions.undo(redis, "digits", leased.item.id, leased.token)
    (back,) = [record async for record in read_changes(redis, "digits", told.cursor)]
    assert (back.item.id, back.work.state, back.work.label) == (leased.item.id, State.LEASED, None)
    assert [record async for record in read_changes(redis, "digits", back.cursor)] == []


async def test_two_reviewers_do_not_see_each_other_and_must_agree(redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    await fill(redis, make_item(1))
    first = await claim_one(redis, "ada")
    assert (await actions.resolve(redis, "digits", first.item.id, first.token, SEVEN)).state is State.OPEN
    assert (await actions.claim(redis, "digits", "ada")).items == [], "she has answered"
    second = await claim_one(redis, "bob")
    assert second.reviews == ()
    work = await actions.resolve(redis, "digits", second.item.id, second.token, SEVEN)
    assert (work.state, work.label) == (State.RESOLVED, "3")


async def test_an_adjudicator_decides_where_they_differ(redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    await fill(redis, make_item(1))
    for reviewer, answer in (("ada", SEVEN), ("bob", NINE)):
        leased = await claim_one(redis, reviewer)
        work = await actions.resolve(redis, "digits", leased.item.id, leased.token, answer)
    assert (work.state, work.label) == (State.ESCALATED, None)
    assert (await actions.claim(redis, "digits", "eve")).items == []
    assert (await actions.claim(redis, "digits", "bob", escalated=True)).items == [], "he is one of the two"
    leased = await claim_one(redis, "eve", escalated=True)
    assert [review.label for review in leased.reviews] == ["3", "8"]
    assert leased.why == "the reviewers differ"
    work = await actions.resolve(redis, "digits", leased.item.id, leased.token, NINE)
    assert (work.state, work.label) == (State.RESOLVED, "8")


async def test_the_most_valuable_comes_first_and_nothing_starves(redis: Redis) -> None:
    def at(day: int) -> str:
        return f"2026-11-{day:02}T10:00:00Z"

    near_tie = make_item(1, at=at(20), scores={"3": 0.5, "8": 0.49})
    disagreement = make_item(2, at=at(20), reason="disagreement", scores={"3": 0.9, "8": 0.05})
    clear = make_item(3, at=at(20), scores={"3": 0.6, "8": 0.1})
    audit = make_item(4, at=at(20), reason="audit", pi=0.005)
    old_audit = make_item(5, at=at(18), reason="audit", pi=0.005)
    await fill(redis, audit, clear, disagreement, near_tie, old_audit)
    claim = await actions.claim(redis, "digits", "ada", 9)
    assert [one.item.id for one in claim.items] == [
        one.id for one in (old_audit, near_tie, disagreement, clear, audit)
    ]


async def test_filters(redis: Redis) -> None:
    times = [f"2026-11-22T10:{number // 60:02}:{number % 60:02}Z" for number in range(400)]
    await fill(
        redis, *(make_item(number, at=at, version=f"v{number % 2 + 1}") for number, at in enumerate(times))
    )
    claim = await actions.claim(redis, "digits", "ada", 3, filters={"version": "v2", "label": "3"})
    assert [one.item.key for one in claim.items] == ["key-1", "key-3", "key-5"]
    claim = await actions.claim(redis, "digits", "ada", 3, filters={"client_id": "client-398"})
    assert [one.item.key for one in claim.items] == ["key-398"]


async def test_inputs_of_others_are_not_read(redis: Redis) -> None:
    """Neither of items that the reviewer has answered, nor of those that the filters leave out."""
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    large = msgspec.Raw(b'"%b"' % (b"x" * 100_000))
    await fill(redis, *(make_item(number, inputs=large) for number in range(60)))
    for leased in (await actions.claim(redis, "digits", "ada", 30)).items:
        await actions.resolve(redis, "digits", leased.item.id, leased.token, SEVEN)

    async def sent() -> int:
        return int((await redis.info("stats"))["total_net_output_bytes"])

    before = await sent()
    (leased,) = (await actions.claim(redis, "digits", "ada")).items
    assert leased.item.inputs == large
    await actions.resolve(redis, "digits", leased.item.id, leased.token, SEVEN)
    assert (await actions.claim(redis, "digits", "bob", filters={"version": "v9"})).items == []
    assert await sent() - before < (1 + SPARE + 2) * len(large)


async def test_what_one_has_answered_is_passed_over_within_redis(redis: Redis) -> None:
    """A reviewer who is far ahead of the second one gets the next item at once."""
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    await fill(redis, *(make_item(number) for number in range(700)))
    for _ in range(6):
        for leased in (await actions.claim(redis, "digits", "ada", 100)).items:
            await actions.resolve(redis, "digits", leased.item.id, leased.token, SEVEN)
    answered = Keys("digits").answered("ada")
    assert await redis.scard(answered) == 600

    async def sent() -> int:
        return int((await redis.info("stats"))["total_net_output_bytes"])

    before = await sent()
    first, second = (await actions.claim(redis, "digits", "ada", 2)).items
    (others,) = (await actions.claim(redis, "digits", "bob")).items
    assert await sent() - before < 60_000, "of 600 items"
    assert len({first.item.id, second.item.id, others.item.id}) == 3
    await actions.resolve(redis, "digits", others.item.id, others.token, SEVEN)
    assert await redis.scard(answered) == 599, "of what is resolved nothing is kept"
    await actions.resolve(redis, "digits", first.item.id, first.token, SEVEN)
    assert await redis.scard(answered) == 600
    await actions.undo(redis, "digits", first.item.id, first.token)
    assert await redis.scard(answered) == 599


async def test_what_does_not_fit_is_refused(redis: Redis) -> None:
    await fill(redis, make_item(1))
    leased = await claim_one(redis, "ada")
    other = "/value is not what this model answers with: send label"
    for answer, why, pointers in (
        (Truth(label="cat"), "/label must be one of 3, 8", ["/label"]),
        (Truth(value=3.0), f"{other}; /label is required", ["/value", "/label"]),
        (Truth(), "/label is required", ["/label"]),
        (Truth(label="3", value=1.0), other, ["/value"]),
    ):
        with pytest.raises(InvalidRequestError) as refused:
            await actions.resolve(redis, "digits", leased.item.id, leased.token, answer)
        assert refused.value.detail == why
        assert [fault.pointer for fault in refused.value.errors] == pointers
    with pytest.raises(UnknownItemError, match="no review item 'nothing'"):
        await actions.resolve(redis, "digits", "nothing", leased.token, SEVEN)


async def test_the_same_input_under_another_key_is_linked(redis: Redis) -> None:
    first = make_item(1)
    other = make_item(2, client_id="client-1", same=first.same)
    await fill(redis, first, other, other, first)
    assert [item.id async for item, _ in list_items(redis, "digits", {})] == [first.id]
    leased = await claim_one(redis, "ada")
    await actions.resolve(redis, "digits", leased.item.id, leased.token, SEVEN)
    (record,) = [record async for record in read_changes(redis, "digits")]
    assert [(link.key, link.linked_to) for link in record.links] == [("key-2", first.id)]
    await fill(redis, make_item(3, client_id="client-1", same=first.same))
    (later,) = [record async for record in read_changes(redis, "digits", record.cursor)]
    assert {link.key for link in later.links} == {"key-2", "key-3"}, "one that came later is told, too"
    (entered,) = (await read_counts(redis, "digits")).entered
    assert (entered.items, entered.weight) == (3, 3.0)


async def test_what_is_too_old_to_be_shown_is_not_shown(redis: Redis) -> None:
    await fill(redis, make_item(1), make_item(2))
    await redis.delete(Keys("digits").review(make_item(1).id, ":inputs"))
    claim = await actions.claim(redis, "digits", "ada", 2)
    assert [one.item.id for one in claim.items] == [make_item(2).id]
    ((_, work),) = [found async for found in list_items(redis, "digits", {}, state=State.SKIPPED)]
    assert work.why == "its inputs are not kept any more"


async def test_answers_from_elsewhere(redis: Redis) -> None:
    await fill(redis, make_item(1))
    item = make_item(1).id
    leased = await claim_one(redis, "ada")
    assert await actions.take_over(redis, "digits", item, "elsewhere", SEVEN)
    assert not await actions.take_over(redis, "digits", item, "elsewhere", SEVEN)
    with pytest.raises(LeaseLostError, match="was resolved as 3"):
        await actions.take_over(redis, "digits", item, "elsewhere", NINE)
    with pytest.raises(LeaseLostError, match="the item is resolved"):
        await actions.resolve(redis, "digits", leased.item.id, leased.token, NINE)


async def test_limits_by_reason_count_what_they_keep_out(redis: Redis) -> None:
    policy = {"digits": ReviewPolicy(limits={"audit": 1})}
    audits = [make_item(number, reason="audit", pi=0.1) for number in range(3)]
    assert await add_items(redis, audits, 100, policy) == [True, False, False]
    assert await add_items(redis, [make_item(9)], 100, policy) == [True]
    counts = await read_counts(redis, "digits")
    assert counts.excess == {"audit": 2}
    assert {(one.reason, one.items, one.kept_out, one.weight) for one in counts.entered} == {
        ("audit", 1, 2, 30.0),
        ("low_confidence", 1, 0, 1.0),
    }


def test_ids_of_items_and_links_are_their_own() -> None:
    assert item_id("a", "k", b"1") == item_id("a", "k", b"2")


async def test_a_value_is_a_finite_number(redis: Redis) -> None:
    await fill(redis, make_guess(1, 3.0, (1.0, 5.0)))
    leased = await claim_one(redis, "ada")
    for answer, why in (
        (Truth(label="3"), "send value; /value is required"),
        (Truth(value=math.inf), "value must be a number"),
        (Truth(value=math.nan), "value must be a number"),
        (Truth(), "value is required"),
    ):
        with pytest.raises(InvalidRequestError, match=why):
            await actions.resolve(redis, "digits", leased.item.id, leased.token, answer)
    work = await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(value=4.0))
    assert (work.state, work.value) == (State.RESOLVED, 4.0)


async def test_that_an_explanation_was_seen_is_kept_with_the_answer_of_who_saw_it(redis: Redis) -> None:
    await fill(redis, make_item(0))
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    first = await claim_one(redis, "ada")
    with pytest.raises(LeaseLostError):
        await actions.explain(redis, "digits", first.item.id, "another")
    await actions.explain(redis, "digits", first.item.id, first.token)
    await actions.explain(redis, "digits", first.item.id, first.token)
    await actions.release(redis, "digits", first.item.id, first.token)
    again = await claim_one(redis, "ada")  # who has seen it has seen it
    await actions.resolve(redis, "digits", again.item.id, again.token, SEVEN)
    await actions.undo(redis, "digits", again.item.id, again.token)
    await actions.resolve(redis, "digits", again.item.id, again.token, SEVEN)
    other = await claim_one(redis, "bob")
    work = await actions.resolve(redis, "digits", other.item.id, other.token, SEVEN)
    assert [(review.reviewer, review.explained) for review in work.reviews] == [("ada", True), ("bob", False)]
    found = await review_stats(redis, "digits")
    assert {one.reviewer: one.explained for one in found.reviewers} == {"ada": 1, "bob": 0}
    assert "explain" not in [did for did, *_ in await events(redis)]
