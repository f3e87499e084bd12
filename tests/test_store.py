"""The connection to Redis: what it survives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loadtests.fleet import Valkey
from rollout.errors import StoreUnavailableError
from rollout.store import Redis, advance, client_of, guard


class Address:
    """An address that leads to one server and later to another; connections that are open stay where they are."""

    def __init__(self) -> None:
        self.leads_to = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", self.leads_to)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    target.write(data)
            target.close()

        await asyncio.gather(copy(reader, here), copy(there, writer))


@pytest.fixture
async def address() -> AsyncIterator[tuple[Address, Redis]]:
    """The address, and a client of it."""
    address = Address()
    async with await asyncio.start_server(address.accept, "127.0.0.1", 0) as server:
        redis = client_of(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        yield address, redis
        await redis.aclose()


@pytest.mark.process
async def test_a_primary_that_became_a_replica_is_left(address: tuple[Address, Redis], tmp_path: Path) -> None:
    """A planned failover leaves connections open to what now takes no writes."""
    where, redis = address
    first, second = Valkey(tmp_path / "first"), Valkey(tmp_path / "second")
    try:
        await asyncio.to_thread(first.start)
        await asyncio.to_thread(second.start, first)
        where.leads_to = first.port
        await redis.set("before", 1)
        await asyncio.to_thread(second.promote)
        async with contextlib.aclosing(client_of(first.url)) as admin:
            await admin.replicaof("127.0.0.1", second.port)
        with pytest.raises(StoreUnavailableError):
            async with guard():
                await redis.set("meanwhile", 1)
        where.leads_to = second.port
        await redis.set("after", 1)
        assert await redis.mget("before", "after") == [b"1", b"1"]
    finally:
        await redis.aclose()
        first.kill()
        second.kill()


async def test_how_far_something_got_never_goes_back(redis: Redis) -> None:
    for cursor in (7, 5):
        await advance(redis, "rollout:{digits}:webhook", cursor)
    assert await redis.get("rollout:{digits}:webhook") == b"7"
