"""Items that somebody broke in Redis: what is done with one names its key, and the others are not in its way."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rollout.errors import StoredValueError, StoreUnavailableError
from rollout.heads import Truth
from rollout.keys import Keys
from rollout.review import actions
from rollout.review.counts import read_counts
from rollout.review.forget import forget_client
from rollout.review.item import ReviewItem
from rollout.review.queue import add_items, list_items, read_item
from rollout.review.state import State
from rollout.store import Redis
from tests.review.items import make_guess, make_item

NAMES = Keys("digits")
SEVEN = Truth(label="3")
Action = Callable[[Redis, str, str], Awaitable[Any]]
ACTIONS: dict[str, Action] = {
    "resolve": lambda redis, item, token: actions.resolve(redis, "digits", item, token, SEVEN),
    "skip": lambda redis, item, token: actions.skip(redis, "digits", item, token, "why"),
    "escalate": lambda redis, item, token: actions.escalate(redis, "digits", item, token, "why"),
    "release": lambda redis, item, token: actions.release(redis, "digits", item, token),
    "explain": lambda redis, item, token: actions.explain(redis, "digits", item, token),
    "undo": lambda redis, item, token: actions.undo(redis, "digits", item, token),
    "import": lambda redis, item, _: actions.take_over(redis, "digits", item, "ada", SEVEN),
    "show": lambda redis, item, _: read_item(redis, "digits", item),
}
# What is put in the place of a field of an item, or of its work; "-" takes the field away.
OF_ITEM: list[tuple[str, Any]] = [
    ("id", "x"),
    ("model", "other"),
    ("at", "yesterday"),
    ("pi", 0),
    ("task", {}),
    ("task", "x"),
    ("answer", {}),
    ("answer", {"label": 3, "confidence": "high", "scores": []}),
    ("other", {}),
    ("other", {"version": 3}),
    ("linked_to", "-self-"),
    ("reason", None),
]
OF_WORK: list[tuple[str, Any]] = [
    ("lease", "-"),
    ("lease", {"reviewer": "ada", "token": "-token-", "until": 10**18, "origin": "open"}),
    ("lease", {"reviewer": "ada", "token": "-token-", "until": 2 * 10**12, "origin": "leased"}),
    ("state", "lost"),
    ("state", "leased"),
    ("reviews", []),
    ("decided_at", "x"),
    ("decided", "forgotten"),
]
WHOLE = (b"\xff\xfe", b"{{", b"", b"null", b"[1, 2]", b'"x"', b"[" * 100_000)


async def decided(redis: Redis) -> tuple[ReviewItem, str]:
    """Adds two items, of which one was decided; returns that with the token of whoever decided."""
    assert all(await add_items(redis, [make_item(1), make_item(2)], 100))
    (leased,) = (await actions.claim(redis, "digits", "ada", filters={"client_id": "client-1"})).items
    await actions.resolve(redis, "digits", leased.item.id, leased.token, SEVEN)
    return leased.item, leased.token


def with_field(data: bytes | str, field: str, value: Any, item: ReviewItem, token: str) -> bytes:
    found = json.loads(data)
    if value == "-":
        found.pop(field)
    else:
        found[field] = json.loads(json.dumps(value).replace("-self-", item.id).replace("-token-", token))
    return json.dumps(found).encode()


async def check(redis: Redis, key: str, broken: bytes, item: ReviewItem, token: str) -> None:
    """Whatever is done with the item names the key; the other item is there for all."""
    await redis.set(key, broken)
    for name, act in ACTIONS.items():
        with pytest.raises(StoredValueError) as caught:
            await act(redis, item.id, token)
        assert caught.value.detail.startswith(f"{key} in Redis holds what Rollout does not write there"), name
        assert len(caught.value.detail.splitlines()) == 1
    assert (await redis.get(key)) == broken
    assert [one.id async for one, _ in list_items(redis, "digits", {}, state=State.RESOLVED)] == []
    (leased,) = (await actions.claim(redis, "digits", "ada", 5)).items
    assert leased.item.client_id == "client-2"
    await actions.release(redis, "digits", leased.item.id, leased.token)


@pytest.mark.parametrize(("field", "value"), OF_ITEM)
async def test_an_item_with_a_broken_field_is_named(redis: Redis, field: str, value: Any) -> None:
    item, token = await decided(redis)
    key = NAMES.review(item.id)
    await check(redis, key, with_field(await redis.get(key) or b"", field, value, item, token), item, token)


@pytest.mark.parametrize(("field", "value"), OF_WORK)
async def test_work_with_a_broken_field_is_named(redis: Redis, field: str, value: Any) -> None:
    item, token = await decided(redis)
    key = NAMES.review(item.id, ":work")
    await check(redis, key, with_field(await redis.get(key) or b"", field, value, item, token), item, token)


@pytest.mark.parametrize("broken", [b"x", b"[1]", b"{}", b'{"version": 3}'])
async def test_what_no_challenger_made_of_an_item_is_named(redis: Redis, broken: bytes) -> None:
    item, token = await decided(redis)
    await check(redis, NAMES.other(item.id), broken, item, token)


@pytest.mark.parametrize("part", ["", ":work"])
async def test_what_is_no_item_at_all_is_named(redis: Redis, part: str) -> None:
    item, token = await decided(redis)
    key = NAMES.review(item.id, part)
    for broken in WHOLE:
        await check(redis, key, broken, item, token)


async def test_items_that_are_linked_in_a_circle_end(redis: Redis) -> None:
    item, token = await decided(redis)
    other = make_item(2)
    for one, to in ((item, other), (other, item)):
        data = await redis.get(NAMES.review(one.id)) or b""
        await redis.set(NAMES.review(one.id), with_field(data, "linked_to", to.id, one, token))
    with pytest.raises(StoredValueError, match=NAMES.review(other.id)):
        await actions.undo(redis, "digits", item.id, token)


async def test_a_figure_that_is_none_is_said(redis: Redis) -> None:
    item, token = await decided(redis)
    await redis.hset(NAMES.reviews("counts"), "resolved|low_confidence", "x")
    with pytest.raises(StoreUnavailableError, match="holds another kind of value"):
        await actions.undo(redis, "digits", item.id, token)


@pytest.mark.parametrize("part", ["", ":work"])
async def test_a_client_is_forgotten_though_an_item_of_it_is_broken(redis: Redis, part: str) -> None:
    for broken in (*WHOLE, b'{"reviews": 3}', b'{"reviews": [3, {"reviewer": 4}], "reason": 3, "same": {}}'):
        item, _ = await decided(redis)
        await redis.set(NAMES.review(item.id, part), broken)
        assert (await forget_client(redis, "digits", "client-1", 60)).reviews == 1
        assert not await redis.keys(f"*{item.id}*")
        await redis.flushall()


async def test_an_item_of_another_kind_is_whole(redis: Redis) -> None:
    assert all(await add_items(redis, [make_guess(1)], 100))
    assert len((await actions.claim(redis, "digits", "ada")).items) == 1
    assert (await read_counts(redis, "digits")).states[State.LEASED]


async def test_an_interval_whose_width_is_no_number_is_named(redis: Redis) -> None:
    item = make_guess(1)
    assert all(await add_items(redis, [item], 100))
    key = NAMES.review(item.id)
    answer = {"value": 0.0, "interval": [-1.7e308, 1.7e308]}
    await redis.set(key, with_field(await redis.get(key) or b"", "answer", answer, item, ""))
    with pytest.raises(StoredValueError, match=key):
        await read_item(redis, "digits", item.id)
