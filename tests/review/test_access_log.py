"""The access log: every look is noted, names no client, and is not kept for ever."""

from __future__ import annotations

import time

import pytest

from rollout.errors import StoreUnavailableError
from rollout.keys import Keys
from rollout.review import access_log
from rollout.review.access_log import AccessEntry, read_access, record_access
from rollout.review.item import milliseconds
from rollout.store import Redis, client_of

LOG = Keys("digits").access


async def read(redis: Redis) -> list[AccessEntry]:
    return [access async for access in read_access(redis, "digits")]


async def test_who_saw_what_and_when(redis: Redis) -> None:
    await record_access(redis, "digits", "Ana", "reviewer", "claim", ["a1", "b2"])
    await record_access(redis, "digits", "", "admin", "export", ["a1"])
    await record_access(redis, "texts", "Bo", "reviewer", "claim", ["c3"])
    first, second = await read(redis)
    assert (first.who, first.role, first.did, first.ids) == ("Ana", "reviewer", "claim", ["a1", "b2"])
    assert (second.who, second.role, second.did, second.ids) == ("", "admin", "export", ["a1"])
    assert abs(milliseconds(first.at) / 1000 - time.time()) < 60


async def test_who_saw_nothing_is_not_noted(redis: Redis) -> None:
    await record_access(redis, "digits", "Ana", "reviewer", "claim", [])
    assert await read(redis) == []


async def test_a_long_list_takes_several_entries(redis: Redis) -> None:
    ids = [f"{number:032x}" for number in range(450)]
    await record_access(redis, "digits", "Ana", "admin", "export", ids)
    entries = await read(redis)
    assert [len(entry.ids) for entry in entries] == [200, 200, 50]
    assert [one for entry in entries for one in entry.ids] == ids


async def test_the_log_is_read_whole(redis: Redis) -> None:
    for number in range(60):
        await record_access(redis, "digits", f"r-{number}", "reviewer", "show", ["a1"] * 200 * 40)
    assert [entry.who for entry in await read(redis)] == [
        f"r-{number}" for number in range(60) for _ in range(40)
    ]


async def test_old_entries_and_too_many_go(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "MOST_ENTRIES", 300)
    days_ago = round((time.time() - 91 * 24 * 3600) * 1000)
    pipe = redis.pipeline(transaction=False)
    for number in range(150):
        old = {"who": "old", "role": "reviewer", "did": "claim", "ids": "[]"}
        pipe.xadd(LOG, old, id=f"{days_ago + number}-0")  # type: ignore[arg-type]
    await pipe.execute()
    await record_access(redis, "digits", "Ana", "reviewer", "claim", ["a1"])
    assert sum(entry.who == "old" for entry in await read(redis)) < 100, "but for a part of a node of the stream"
    for _ in range(10):
        await record_access(redis, "digits", "Ana", "reviewer", "list", ["a1"] * 200 * 50)
    assert 300 <= await redis.xlen(LOG) < 450


async def test_what_cannot_be_noted_fails(redis: Redis) -> None:
    gone = client_of("unix:///nowhere/valkey.sock")
    with pytest.raises(StoreUnavailableError):
        await record_access(gone, "digits", "Ana", "reviewer", "claim", ["a1"])
    await gone.aclose()
