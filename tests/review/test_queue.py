"""The queue in Redis: one item for one prediction, bounded, in order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.errors import StoreUnavailableError
from rollout.heads import Classification, Truth
from rollout.keys import Keys
from rollout.review import actions
from rollout.review.export import export_rows
from rollout.review.forget import forget_client
from rollout.review.item import GONE, ReviewItem, item_id
from rollout.review.queue import (
    CHUNK,
    MOST_LINKS,
    Budget,
    add_inputs,
    add_items,
    list_items,
    read_item,
    read_items,
    read_links,
)
from rollout.review.records import read_changes
from rollout.review.state import State
from rollout.store import Redis, client_of
from tests.review.items import make_item, written


async def keys(redis: Redis, model: str = "digits", since: str | None = None, **filters: str) -> list[str | None]:
    return [item.key async for item, _ in list_items(redis, model, filters, since)]


async def test_items_come_back_whole_and_oldest_first(redis: Redis) -> None:
    items = [make_item(number) for number in (3, 1, 2)]
    assert await add_items(redis, items, 100) == [True, True, True]
    found = [item async for item, _ in list_items(redis, "digits", {})]
    assert found == sorted(items, key=lambda item: item.at)


async def test_a_repeated_prediction_makes_no_second_item(redis: Redis) -> None:
    first = make_item(1)
    assert await add_items(redis, [first, first], 100) == [True, True]
    assert await add_items(redis, [make_item(1, confidence=0.1)], 100) == [True]
    assert [item async for item, _ in list_items(redis, "digits", {})] == [first]


async def test_a_full_queue_takes_nothing_new_but_knows_what_it_has(redis: Redis) -> None:
    assert await add_items(redis, [make_item(1), make_item(2), make_item(3)], 2) == [True, True, False]
    assert await add_items(redis, [make_item(3), make_item(1)], 2) == [False, True]
    assert await keys(redis) == ["key-1", "key-2"]


def weighing(number: int, size: int, client_id: str = "big") -> ReviewItem:
    """Returns an item that takes so many bytes of Redis, with its inputs."""
    bare = make_item(number, client_id=client_id, inputs=GONE)
    left = size - len(msgspec.json.encode(bare)) - 2
    return msgspec.structs.replace(bare, inputs=msgspec.Raw(b'"%b"' % (b"x" * left)))


async def weights(redis: Redis) -> dict[bytes, int]:
    found: dict[Any, Any] = await redis.hgetall(Keys("digits").reviews("bytes"))
    return {name: int(size) for name, size in found.items()}


async def test_items_have_a_budget_of_the_model_and_of_each_client(redis: Redis) -> None:
    budget = Budget(model=3000, client=2000)

    async def add(*items: ReviewItem) -> list[bool]:
        return await add_items(redis, items, 100, budget=budget)

    assert await add(weighing(1, 1000), weighing(2, 1000), weighing(3, 1000)) == [True, True, False]
    assert await add(weighing(4, 1000, "other"), weighing(5, 1000, "third")) == [True, False]
    assert (await weights(redis))[b"all"] == 3000
    assert sorted((await weights(redis)).values()) == [1000, 2000, 3000]
    assert await add(weighing(1, 1000)) == [True], "what is there is there"
    assert await redis.hget(Keys("digits").reviews("excess"), "low_confidence") == b"2", "the others are counted"
    # Who is forgotten weighs nothing any more, and neither does what has expired.
    await forget_client(redis, "digits", "big", 60)
    assert sorted((await weights(redis)).values()) == [1000, 1000]
    assert await add(weighing(6, 2000, "third")) == [True]
    async for member, _ in redis.zscan_iter(Keys("digits").reviews("weights")):
        await redis.zadd(Keys("digits").reviews("weights"), {member: 1})
    assert await add(weighing(7, 2000, "fourth"), weighing(8, 1000, "fifth")) == [True, True]
    assert sorted((await weights(redis)).values()) == [1000, 2000, 3000]


async def test_what_a_head_says_of_itself_weighs_as_well(redis: Redis) -> None:
    labels = [f"a class with a long name, the {number}th" for number in range(5000)]
    items = [make_item(number, task=written(Classification(labels=labels)), client_id="big") for number in (1, 2)]
    size = len(items[0].task)
    budget = Budget(model=2 * size, client=2 * size)
    assert await add_items(redis, items, 100, budget=budget) == [True, False]
    assert (await weights(redis))[b"all"] > size


async def test_what_is_linked_to_an_item_weighs_too_and_has_a_number(redis: Redis) -> None:
    first = make_item(0, client_id="big", same="a" * 32)
    links = [
        make_item(number, client_id="big", same="a" * 32, key=f"key-{number}", id=f"{number:032x}")
        for number in range(1, MOST_LINKS + 2)
    ]
    assert await add_items(redis, [first, *links], 1) == [True] * (MOST_LINKS + 1) + [False]
    assert len(await read_links(redis, "digits", first.id)) == MOST_LINKS
    assert await redis.hget(Keys("digits").reviews("excess"), "low_confidence") == b"1", "the other is counted"
    assert await add_items(redis, links, 1) == [True] * MOST_LINKS + [False], "what is there is there"
    one = len(await redis.get(Keys("digits").review(links[0].id)) or "")
    assert (await weights(redis))[b"all"] > MOST_LINKS * one * 0.9
    await forget_client(redis, "digits", "big", 60)
    assert await weights(redis) == {}
    budget = Budget(model=3 * one + 100, client=3 * one + 100)
    await redis.delete(f"{Keys('digits').client('big')}:forgotten")
    assert await add_items(redis, [first, *links[:3]], 1, budget=budget) == [True, True, True, False]


async def test_the_name_of_another_key_is_no_item(redis: Redis) -> None:
    item = make_item(1)
    await add_items(redis, [item], 100)
    assert await read_item(redis, "digits", item.id) is not None
    for other in (f"{item.id}:inputs", f"{item.id}:work", f"{item.id}\n", item.id.upper(), "", "\ud800"):
        assert await read_item(redis, "digits", other) is None


async def test_models_have_queues_of_their_own(redis: Redis) -> None:
    mixed = [make_item(1), make_item(1, model="texts"), make_item(2)]
    assert await add_items(redis, mixed, 2) == [True, True, True]
    assert await keys(redis) == ["key-1", "key-2"]
    assert await keys(redis, "texts") == ["key-1"]


async def test_filters_and_since(redis: Redis) -> None:
    await add_items(
        redis, [make_item(number, arm="challenger" if number % 2 else "control") for number in range(6)], 9
    )
    assert await keys(redis, arm="challenger") == ["key-1", "key-3", "key-5"]
    assert await keys(redis, client_id="client-4") == ["key-4"]
    assert await keys(redis, since="2026-11-22T10:00:04Z") == ["key-4", "key-5"]
    assert await keys(redis, since="2026-11-22T11:00:05+01:00") == ["key-5"]
    assert await keys(redis, arm="nobody") == []


async def test_long_queues_are_listed_whole(redis: Redis) -> None:
    await add_items(redis, [make_item(number) for number in range(450)], 1000)
    assert len(await keys(redis)) == 450


@given(st.text(min_size=1), st.one_of(st.none(), st.text(min_size=1)), st.binary())
def test_ids_follow_from_client_and_key_alone(client_id: str, key: str | None, inputs: bytes) -> None:
    same = item_id(client_id, key, inputs if key is None else inputs + b"another image")
    assert item_id(client_id, key, inputs) == same
    assert item_id(client_id + "x", key, inputs) != same
    assert item_id(client_id, (key or "") + "x", inputs) != same


def test_client_and_key_cannot_run_into_each_other() -> None:
    assert item_id("a", "bc", b"") != item_id("ab", "c", b"")


async def test_a_redis_that_is_gone_is_one_clear_error(redis: Redis) -> None:
    gone = client_of("unix:///nowhere/valkey.sock")
    with pytest.raises(StoreUnavailableError, match="Redis does not answer"):
        await add_items(gone, [make_item(1)], 9)
    await gone.aclose()


def test_disagreements_come_by_chance_and_before_what_is_sure() -> None:
    other = {"version": "v2", "label": "8"}
    sure: dict[str, Any] = {"scores": {"3": 0.99, "8": 0.01}}
    items = [make_item(n, reason="disagreement", other=other, **(sure if n % 2 else {})) for n in range(400)]
    worth = [item.value_of_a_look for item in items]
    assert min(worth) >= 0.5
    assert max(worth) < 1
    assert abs(sum(worth[::2]) - sum(worth[1::2])) / 200 < 0.06, "whatever the champion's confidence"
    assert make_item(1, **sure).value_of_a_look == pytest.approx(0.02)
    assert make_item(1, reason="audit").value_of_a_look == 0


async def test_many_links_are_read_a_few_at_a_time(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        same = f"{number:032x}"
        items = [make_item(number, same=same)]
        for link in range(300):
            key = f"again-{link}"
            items.append(make_item(number, key=key, id=item_id(f"client-{number}", key, b""), same=same))
        assert all(await add_items(redis, items, 1000))
    for leased in (await actions.claim(redis, "digits", "ada", 6)).items:
        await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label="3"))
    asked: list[int] = []
    for command in ("mget", "eval"):
        call = getattr(redis, command)

        async def count(*arguments: Any, call: Any = call) -> Any:
            asked.append(len(arguments[0]) if isinstance(arguments[0], list) else len(arguments))
            return await call(*arguments)

        monkeypatch.setattr(redis, command, count)
    rows = [row async for row in export_rows(redis, "digits", None, lambda _: None, who="ada", role="admin")]
    assert len({row.id for row in rows}) == len(rows) == 6 * 301
    assert max(asked) < 3 * CHUNK + 10, "of what was asked for at once"
    together: list[int] = []

    async def note(*arguments: Any, **options: Any) -> Any:
        together.append(len(arguments[2]))
        return await read_items(*arguments, **options)

    monkeypatch.setattr("rollout.review.records.read_items", note)
    records = [record async for record in read_changes(redis, "digits")]
    assert max(together) == 300, "of what was in memory at once"
    assert [len(record.links) for record in records] == [300] * 6


def of_bytes(number: int, size: int) -> ReviewItem:
    """Returns an item whose inputs have so many bytes."""
    return make_item(number, inputs=msgspec.Raw(b'{"text":"%b"}' % (b"x" * (size - 11))))


async def test_of_large_inputs_few_are_in_memory_at_once(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.review.queue.INPUT_BYTES", 1000, raising=False)
    items = [of_bytes(number, 300) for number in range(10)] + [of_bytes(10, 5000)]
    assert all(await add_items(redis, items, 100))
    for leased in (await actions.claim(redis, "digits", "ada", 11)).items[:4]:
        await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label="3"))
    together: list[int] = []

    async def note(*arguments: Any) -> list[ReviewItem]:
        whole = await add_inputs(*arguments)
        together.append(sum(len(bytes(item.inputs)) for item in whole) if len(whole) > 1 else 0)
        return whole

    monkeypatch.setattr("rollout.review.queue.add_inputs", note)
    seen = [item for state in State async for item, _ in list_items(redis, "digits", {}, state=state)]
    assert sorted(seen, key=lambda item: item.at) == items
    records = [record.item async for record in read_changes(redis, "digits")]
    assert len(records) == 4
    assert all(record in items for record in records)
    assert max(together) == 900


async def test_a_claim_is_no_larger_than_may_be(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("queue", "actions"):
        monkeypatch.setattr(f"rollout.review.{module}.INPUT_BYTES", 1000, raising=False)
    assert all(await add_items(redis, [of_bytes(number, 300) for number in range(5)], 100))
    assert all(await add_items(redis, [of_bytes(number, 5000) for number in (5, 6)], 100))

    async def claimed(reviewer: str) -> list[str | None]:
        return [leased.item.key for leased in (await actions.claim(redis, "digits", reviewer, 9)).items]

    first = await claimed("ada")
    assert first == ["key-0", "key-1", "key-2"]
    assert await claimed("ada") == first, "whoever has as much as they may gets it again"
    assert await claimed("bob") == ["key-3", "key-4"]
    assert await claimed("cyd") == ["key-5"], "one that is larger comes alone"
    assert await claimed("dan") == ["key-6"]
