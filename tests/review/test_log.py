"""The review log: durable before it says so, with Redis and without."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rollout.config import Settings
from rollout.embedded import running_redis
from rollout.review import log as log_module
from rollout.review.item import ReviewItem
from rollout.review.log import ReviewLog
from rollout.review.policy import ReviewPolicy
from rollout.review.queue import add_items, list_items
from rollout.review.sampling import Sampler
from rollout.review.spool import Spool
from rollout.store import Redis, client_of, connect
from tests.review.items import make_item


async def keys(redis: Redis) -> set[str | None]:
    return {item.key async for item, _ in list_items(redis, "digits", {})}


async def until_drained(spool: Spool) -> None:
    for _ in range(100):
        if not spool.size:
            return
        await asyncio.sleep(0.1)


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


@pytest.mark.parametrize("deferred", [False, True])
async def test_large_items_go_in_small_groups(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, deferred: bool
) -> None:
    groups = []

    async def counting(redis: Redis, items: list[ReviewItem], limit: int, policies: Any) -> list[bool]:
        groups.append([len(item.inputs) // 1_000_000 for item in items])
        return await add_items(redis, items, limit, policies)

    monkeypatch.setattr(log_module, "add_items", counting)
    items = [
        make_item(number, inputs=msgspec.Raw(b'"%b"' % (b"x" * megabytes * 1_000_000)))
        for number, megabytes in enumerate((1, 2, 1, 5, 3, 1, 1))
    ]
    spool = Spool(tmp_path / "spool", 50_000_000)
    log = ReviewLog(redis, spool, 1000)
    if deferred:
        spool.append(items)
        log.start()
        await until_drained(spool)
    else:
        assert set(await asyncio.gather(*map(log.add, items))) == {"queued"}
    assert groups == [[1, 2, 1], [5], [3, 1], [1]]
    assert len(await keys(redis)) == len(items)
    await log.close()


async def test_a_full_queue_is_not_called_queued(redis: Redis, spool: Spool) -> None:
    log = ReviewLog(redis, spool, 1)
    assert await log.add(make_item(1)) == "queued"
    assert await log.add(make_item(2)) == "dropped"


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
    await until_drained(spool)
    assert await keys(redis) == {f"key-{number}" for number in range(1, 30)}
    assert await log.add(make_item(30)) == "queued"
    await log.close()
    await redis.aclose()
    await asyncio.to_thread(second_run.__exit__, None, None, None)


async def test_what_was_deferred_is_kept_even_by_a_full_queue(redis: Redis, spool: Spool) -> None:
    spool.append([make_item(1), make_item(2), make_item(3)])
    sampler = Sampler("digits")
    sampler.policy = ReviewPolicy(limits={"low_confidence": 2})
    log = ReviewLog(redis, spool, 1, {"digits": sampler})
    log.start()
    await until_drained(spool)
    assert await keys(redis) == {"key-1", "key-2", "key-3"}
    assert await log.add(make_item(4)) == "dropped"
    await log.close()


async def test_with_neither_redis_nor_room_predictions_go_on(tmp_path: Path) -> None:
    gone = client_of("unix:///nowhere/valkey.sock")
    log = ReviewLog(gone, Spool(tmp_path / "spool", 10), 100)
    assert await log.add(make_item(1)) == "dropped"
    await gone.aclose()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_drops_items_and_says_so_once(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Redis.from_url("unix:///nowhere/valkey.sock")
    spool = Spool(small_disk / "spool", 10**9)
    log = ReviewLog(gone, spool, 10**9)
    fates = [await log.add(make_item(number)) for number in range(400)]
    kept = fates.count("deferred")
    assert 0 < kept < 400
    assert set(fates) == {"deferred", "dropped"}
    with spool.drain() as items:
        found = [item.key for item in items]
    assert found == [f"key-{number}" for number, fate in enumerate(fates) if fate == "deferred"]
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "1 review items are lost" in line.getMessage()
    assert "No space left on device" in line.getMessage()
    assert str(small_disk) in line.getMessage()
    assert line.exc_info is None
    await gone.aclose()
