"""The review log: durable before it says so, with Redis and without."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rollout.config import Settings
from rollout.embedded import running_redis
from rollout.review import log as log_module
from rollout.review.item import ReviewItem
from rollout.review.log import ReviewLog
from rollout.review.queue import add_items, list_items
from rollout.review.spool import Spool
from rollout.store import Redis, connect
from tests.review.items import make_item


async def keys(redis: Redis) -> set[str | None]:
    return {item.key async for item, _ in list_items(redis, "digits", {})}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", 1_000_000)


async def test_queued_means_that_redis_has_it(redis: Redis, spool: Spool) -> None:
    log = ReviewLog(redis, spool, 100)
    for number in range(3):
        assert await log.add(make_item(number)) == "queued"
        assert f"key-{number}" in await keys(redis)
    await log.close()


async def test_items_of_many_callers_go_in_groups(
    redis: Redis, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = []

    async def counting(redis: Redis, items: list[ReviewItem], limit: int, policies: Any) -> list[bool]:
        groups.append(len(items))
        return await add_items(redis, items, limit, policies)

    monkeypatch.setattr(log_module, "add_items", counting)
    log = ReviewLog(redis, spool, 1000)
    fates = await asyncio.gather(*(log.add(make_item(number)) for number in range(300)))
    assert set(fates) == {"queued"}
    assert sum(groups) == 300
    assert len(groups) <= 3
    assert len(await keys(redis)) == 300


async def test_a_full_queue_is_not_called_queued(redis: Redis, spool: Spool) -> None:
    log = ReviewLog(redis, spool, 1)
    assert await log.add(make_item(1)) == "queued"
    assert await log.add(make_item(2)) is None


async def test_without_redis_items_wait_on_disk_until_it_is_back(tmp_path: Path, spool: Spool) -> None:
    settings = Settings(home=tmp_path)
    first_run = running_redis(settings)
    url = await asyncio.to_thread(first_run.__enter__)
    redis = await connect(url)
    log = ReviewLog(redis, spool, 100)
    log.start()
    assert await log.add(make_item(1)) == "queued"
    await asyncio.to_thread(first_run.__exit__, None, None, None)

    fates = await asyncio.gather(*(log.add(make_item(number)) for number in range(2, 30)))
    assert set(fates) == {"deferred"}
    assert spool.size > 0

    second_run = running_redis(settings)
    await asyncio.to_thread(second_run.__enter__)
    for _ in range(100):
        if not spool.size:
            break
        await asyncio.sleep(0.1)
    assert await keys(redis) == {f"key-{number}" for number in range(1, 30)}
    assert await log.add(make_item(30)) == "queued"
    await log.close()
    await redis.aclose()
    await asyncio.to_thread(second_run.__exit__, None, None, None)


async def test_what_was_deferred_is_kept_even_by_a_full_queue(redis: Redis, spool: Spool) -> None:
    spool.append([make_item(1), make_item(2)])
    log = ReviewLog(redis, spool, 1)
    log.start()
    for _ in range(50):
        if not spool.size:
            break
        await asyncio.sleep(0.1)
    assert await keys(redis) == {"key-1", "key-2"}
    await log.close()


async def test_with_neither_redis_nor_room_predictions_go_on(tmp_path: Path) -> None:
    gone = Redis.from_url("unix:///nowhere/valkey.sock")
    log = ReviewLog(gone, Spool(tmp_path / "spool", 10), 100)
    assert await log.add(make_item(1)) is None
    await gone.aclose()
