"""The queue in Redis: one item for one prediction, bounded, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.errors import StoreUnavailableError
from rollout.review.item import item_id
from rollout.review.queue import add_items, list_items
from rollout.store import Redis, client_of
from tests.review.items import make_item


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
