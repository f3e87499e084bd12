"""Several reviewers at one actions, in any order of steps, against a model of it in memory, on a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rollout.errors import LeaseLostError
from rollout.heads import Truth
from rollout.review import actions
from rollout.review.actions import Leased
from rollout.review.counts import read_counts
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.review.queue import add_items, list_items
from rollout.review.records import read_changes
from rollout.review.state import State
from rollout.store import Redis, client_of
from tests.review.items import make_item

T = TypeVar("T")
REVIEWERS = st.sampled_from(["ada", "bob", "eve"])
SELDOM = st.sampled_from([False, False, False, True])
LABELS = st.sampled_from(["3", "8"])
OVER_S = 0.01


@dataclass
class Known:
    """What the model knows of an item."""

    rank: float
    state: State = State.OPEN
    reviews: list[tuple[str, str]] = field(default_factory=list)
    label: str | None = None
    holder: str = ""
    token: str = ""
    origin: State = State.OPEN
    is_over: bool = False
    undoable: str | None = None
    did: str = ""
    steps: int = 0
    was_resolved: bool = False


class Desk(RuleBasedStateMachine):
    """The model, and the real desk beside it."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis: Redis = client_of(self.url)
        self.known: dict[str, Known] = {}
        self.tokens: list[tuple[str, str]] = []
        self.number = 0

    def do(self, step: Awaitable[T]) -> T:
        return self.runner.run(_wait(step))

    def teardown(self) -> None:
        self.do(self.redis.aclose())
        self.runner.close()

    @initialize(required=st.integers(1, 3))
    def begin(self, required: int) -> None:
        self.required = required
        self.do(self.redis.flushall())
        self.do(write_policy(self.redis, "digits", ReviewPolicy(required_reviews=required)))

    @rule(count=st.integers(1, 3))
    def add(self, count: int) -> None:
        items = [make_item(self.number + each) for each in range(count)]
        self.number += count
        assert all(self.do(add_items(self.redis, [*items, *items], 1000)))
        self.known.update((item.id, Known(item.rank)) for item in items)

    @rule(reviewer=REVIEWERS, count=st.integers(1, 4), escalated=SELDOM, loses=SELDOM)
    def claim(self, reviewer: str, count: int, *, escalated: bool, loses: bool) -> None:
        origin = State.ESCALATED if escalated else State.OPEN
        for one in self.known.values():
            if one.state is State.LEASED and one.is_over:
                one.state, one.holder, one.undoable, one.is_over = one.origin, "", None, False
                one.steps += 1
        own = {
            item_id
            for item_id, one in self.known.items()
            if one.state is State.LEASED and one.holder == reviewer and one.origin is origin
        }
        free = sorted(
            (
                (not one.reviews if origin is State.OPEN else False, one.rank, item_id)
                for item_id, one in self.known.items()
                if one.state is origin and reviewer not in [who for who, _ in one.reviews]
            ),
        )
        claim = self.do(
            actions.claim(self.redis, "digits", reviewer, count, OVER_S if loses else 600, escalated=escalated)
        )
        got = [leased.item.id for leased in claim.items]
        first = got[: len(own)]
        assert set(first) == own if len(own) <= count else set(first) < own
        assert got[len(own) :] == [item_id for _, _, item_id in free[: max(0, count - len(own))]]
        for leased in claim.items:
            self._is_leased(leased, reviewer, origin, is_own=leased.item.id in own, loses=loses)
        holders = [one.holder for one in self.known.values() if one.state is State.LEASED]
        assert claim.leased_by_others == sum(holder != reviewer for holder in holders)
        assert claim.open == sum(one.state is State.OPEN for one in self.known.values())
        if loses:
            time.sleep(OVER_S + 0.002)

    def _is_leased(self, leased: Leased, reviewer: str, origin: State, *, is_own: bool, loses: bool) -> None:
        one = self.known[leased.item.id]
        shown = [(review.reviewer, review.label) for review in leased.reviews]
        assert shown == (one.reviews if origin is State.ESCALATED else [])
        if is_own:
            assert leased.token == one.token
        else:
            one.steps += 1
            one.origin, one.undoable = origin, None
            self.tokens.append((leased.item.id, leased.token))
        one.state, one.holder, one.token, one.is_over = State.LEASED, reviewer, leased.token, loses

    @precondition(lambda self: self.tokens)
    @rule(
        data=st.data(),
        label=LABELS,
        did=st.sampled_from(["resolve", "resolve", "resolve", "skip", "escalate", "release"]),
    )
    def decide(self, data: st.DataObject, label: str, did: str) -> None:
        held = [(item_id, one.token) for item_id, one in self.known.items() if one.state is State.LEASED]
        item_id, token = data.draw(st.sampled_from(held if held and not data.draw(SELDOM) else self.tokens))
        one = self.known[item_id]
        call: Coroutine[Any, Any, Any]
        if did == "resolve":
            call = actions.resolve(self.redis, "digits", item_id, token, Truth(label=label))
        elif did == "release":
            call = actions.release(self.redis, "digits", item_id, token)
        else:
            call = getattr(actions, did)(self.redis, "digits", item_id, token, "why")
        if one.state is not State.LEASED or one.token != token or one.is_over:
            with pytest.raises(LeaseLostError):
                self.do(call)
            return
        self.do(call)
        one.steps += 1
        one.did, one.undoable = did, token
        if did == "release":
            one.state, one.undoable = one.origin, None
        elif did != "resolve":
            one.state = State.SKIPPED if did == "skip" else State.ESCALATED
        else:
            one.reviews.append((one.holder, label))
            said = {answer for _, answer in one.reviews}
            if one.origin is not State.ESCALATED and len(said) > 1:
                one.state = State.ESCALATED
            elif one.origin is not State.ESCALATED and len(one.reviews) < self.required:
                one.state = State.OPEN
            else:
                one.state, one.label, one.was_resolved = State.RESOLVED, label, True

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        last = [(item_id, one.undoable) for item_id, one in self.known.items() if one.undoable]
        item_id, token = data.draw(st.sampled_from(last if last and not data.draw(SELDOM) else self.tokens))
        one = self.known[item_id]
        call = actions.undo(self.redis, "digits", item_id, token)
        if one.undoable != token:
            with pytest.raises(LeaseLostError):
                self.do(call)
            return
        leased = self.do(call)
        assert (leased.item.id, leased.token) == (item_id, token)
        if one.did == "resolve":
            one.reviews.pop()
        one.steps += 1
        one.state, one.label, one.undoable, one.is_over = State.LEASED, None, None, False

    @invariant()
    def both_agree(self) -> None:
        if not self.known:
            return
        for state in State:
            found = {
                item.id: work
                for item, work in self.do(collect(list_items(self.redis, "digits", {}, state=state)))
            }
            assert found.keys() == {item_id for item_id, one in self.known.items() if one.state is state}
            for item_id, work in found.items():
                one = self.known[item_id]
                assert [(review.reviewer, review.label) for review in work.reviews] == one.reviews
                assert work.label == one.label
        counted = self.do(read_counts(self.redis, "digits")).states
        assert {state: sum(reasons.values()) for state, reasons in counted.items()} == {
            state: sum(one.state is state for one in self.known.values()) for state in State
        }
        changes = self.do(collect(read_changes(self.redis, "digits")))
        assert {record.item.id: record.work.label for record in changes} == {
            item_id: one.label for item_id, one in self.known.items() if one.was_resolved
        }
        assert [record.cursor for record in changes] == sorted({record.cursor for record in changes})
        for record in changes:
            assert len(record.events) == self.known[record.item.id].steps
            for before, after in zip(record.events, record.events[1:], strict=False):
                assert before.after is after.before


async def collect(found: Any) -> list[Any]:
    return [one async for one in found]


def test_any_order_of_steps(valkey_url: str) -> None:
    Desk.url = valkey_url.replace("rollout:", "test:")
    run_state_machine_as_test(
        Desk,
        settings=settings(
            max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


async def _wait(step: Awaitable[T]) -> T:
    return await step
