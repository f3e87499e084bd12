"""The review log: durable before it says so, with Redis and without."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
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
from tests.disks import fill, small_disk
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

    async def counting(redis: Redis, items: list[ReviewItem], *more: Any) -> list[bool]:
        groups.append(len(items))
        return await add_items(redis, items, *more)

    monkeypatch.setattr(log_module, "add_items", counting)
    log = ReviewLog(redis, spool, 1000)
    fates = await asyncio.gather(*(log.add(make_item(number)) for number in range(300)))
    assert set(fates) == {"queued"}
    assert sum(groups) == 300
    assert len(groups) <= 3
    assert len(await keys(redis)) == 300


async def test_what_comes_while_a_group_is_on_its_way_does_not_wait_for_it(
    redis: Redis, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_free = asyncio.Event()

    async def slow_at_first(redis: Redis, items: list[ReviewItem], *more: Any) -> list[bool]:
        if items[0].key == "key-0":
            await is_free.wait()
        return await add_items(redis, items, *more)

    monkeypatch.setattr(log_module, "add_items", slow_at_first)
    log = ReviewLog(redis, spool, 100)
    first = log.add(make_item(0))
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        assert [await fate for fate in [log.add(make_item(1)), log.add(make_item(2))]] == ["queued"] * 2
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0.05)
    assert not first.done()
    assert not closing.done(), "the log closes once everything is durable"
    is_free.set()
    await closing
    assert first.result() == "queued"


async def test_what_comes_as_all_groups_arrive_is_not_forgotten(
    redis: Redis, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    are_free = asyncio.Event()

    async def all_at_once(redis: Redis, items: list[ReviewItem], *more: Any) -> list[bool]:
        await are_free.wait()
        return [True] * len(items)

    monkeypatch.setattr(log_module, "add_items", all_at_once)
    log = ReviewLog(redis, spool, 100)
    groups = []
    for number in range(log_module.COMMITS_AT_ONCE):
        groups.append(log.add(make_item(number)))
        await asyncio.sleep(0)
    later: list[asyncio.Future[log_module.Fate]] = []
    groups[0].add_done_callback(lambda _: later.append(log.add(make_item(9))))
    are_free.set()
    async with asyncio.timeout(1):
        assert [await group for group in groups] == ["queued"] * len(groups)
        assert await later[0] == "queued"
    await log.close()


@pytest.mark.parametrize("deferred", [False, True])
async def test_large_items_go_in_small_groups(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, deferred: bool
) -> None:
    groups = []

    async def counting(redis: Redis, items: list[ReviewItem], *more: Any) -> list[bool]:
        groups.append([len(item.inputs) // 1_000_000 for item in items])
        return await add_items(redis, items, *more)

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


async def test_what_a_full_disk_costs_is_said_once_a_minute_with_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]

    gone = client_of("unix:///nowhere/valkey.sock")
    with small_disk(tmp_path / "disk", "256k") as disk:
        spool = Spool(disk, 1_000_000)
        log = ReviewLog(gone, spool, 100)
        assert await log.add(make_item(1)) == "deferred"
        filler = fill(disk)
        assert set(await asyncio.gather(*(log.add(make_item(n)) for n in range(2, 302)))) == {"dropped"}
        (first,) = said()
        assert re.fullmatch(
            rf"\d+ review items are lost: Redis is away, and the spool in {re.escape(str(disk))} "
            r"cannot be written \(No space left on device\)",
            first,
        )
        monkeypatch.setattr(log_module, "SAY_EVERY_S", 0)
        log.start()  # what was not said yet comes with the next look
        async with asyncio.timeout(10):
            while len(said()) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert sum(int(line.split()[0]) for line in said()) == 300
        filler.unlink()
        assert await log.add(make_item(302)) == "deferred"
        await log.close()
        with spool.drain() as items:
            assert [item.key for item in items] == ["key-1", "key-302"]
    assert not [one for one in caplog.records if one.exc_info], "no traceback"
    await gone.aclose()


async def test_a_redis_that_hangs_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "KEEP_WITHIN_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        redis = client_of(f"redis://127.0.0.1:{nobody.getsockname()[1]}")
        log = ReviewLog(redis, Spool(tmp_path / "spool", 1_000_000), 100)
        async with asyncio.timeout(0.9):
            assert await log.add(make_item(1)) == "deferred"
        await redis.aclose()
