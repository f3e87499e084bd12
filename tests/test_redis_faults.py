"""What is wrong with Redis is said in one line, with what to do about it: real servers that refuse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from rollout.errors import StoreUnavailableError
from rollout.store import Redis, Server, connect, guard, reason, run_script
from tests.redis_servers import ADDRESS, RedisServer, running, wait_until, watch

Work = Callable[[Redis], Awaitable[Any]]

# What a busy machine may take until a replica has caught up.
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(
        tmp_path_factory.mktemp("faults") / "server", "user few on >pw ~rollout:* +ping +info +get", "databases 2"
    )
    with running(server):
        yield server


async def fault(url: str, work: Work | None = None) -> str:
    """Returns what is said of an attempt to connect, or to do something then."""
    with pytest.raises(StoreUnavailableError) as caught:
        async with aclosing(await connect(url)) as redis, guard():
            assert work is not None, "it should not have connected"
            await work(redis)
    detail = caught.value.detail
    assert "\n" not in detail
    return detail


async def write(redis: Redis) -> None:
    await redis.set("rollout:{m}:x", "1")


async def write_in_script(redis: Redis) -> None:
    await run_script(redis, "redis.call('SET', KEYS[1], 1)", ["rollout:{m}:x"])


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://app:wrong@{}", "refuses the user or the password"),
        ("redis://{}/7", "no database of the number"),
        ("rediss://{}", "no TLS on {}: write redis:// for rediss://"),
        ("rediss+cluster://{}", "no TLS on {}: write redis+cluster:// for rediss+cluster://"),
        ("rediss+sentinel://{}/main", "no TLS on {}: write redis+sentinel:// for rediss+sentinel://"),
        ("redis+cluster://{}", "no cluster there: write redis://"),
        ("redis+sentinel://{}/main", "there is no Sentinel"),
        ("redis://127.0.0.1:1", "redis://127.0.0.1:1/0: Redis does not answer: Error 111 connecting"),
        ("redis+cluster://127.0.0.1:1", "redis+cluster://127.0.0.1:1: Redis does not answer: "),
        ("redis+sentinel://127.0.0.1:1/main", "Sentinel names no primary that is up"),
    ],
)
async def test_at_the_start(server: RedisServer, url: str, words: str) -> None:
    took = []
    for _ in range(3):  # one may be held up by what else runs here
        started = time.monotonic()
        assert words.format(server.address) in await fault(url.format(server.address))
        took.append(time.monotonic() - started)
    assert min(took) < 0.9, "at once, not after a time limit"


@pytest.mark.parametrize("work", [write, write_in_script])
async def test_a_server_that_stores_nothing_more(server: RedisServer, work: Work) -> None:
    url = f"redis://{server.address}"
    server.call("CONFIG SET", "maxmemory", "1")
    try:
        assert "has reached its maxmemory" in await fault(url, work)
    finally:
        server.call("CONFIG SET", "maxmemory", "0")
    server.call("CONFIG SET", "min-replicas-to-write", "1")
    try:
        assert "fewer replicas than its min-replicas-to-write" in await fault(url, work)
    finally:
        server.call("CONFIG SET", "min-replicas-to-write", "0")
    server.call("REPLICAOF", "127.0.0.1", "1")
    try:
        assert "is a replica here" in await fault(url, work)
    finally:
        server.call("REPLICAOF", "NO", "ONE")


async def test_a_user_who_may_too_little(server: RedisServer) -> None:
    url = f"redis://few:pw@{server.address}"
    for work, words in (
        (write, "User few has no permissions to run the 'set' command"),
        (write_in_script, "User few has no permissions to run the 'eval' command"),
        (lambda redis: redis.get("of:others"), "No permissions to access a key"),
    ):
        detail = await fault(url, work)
        assert words in detail
        assert "set the ACL rule of REFERENCE.md" in detail


async def test_a_password_that_is_missing(server: RedisServer) -> None:
    server.call("CONFIG SET", "requirepass", "secret")
    try:
        assert "Redis wants a password" in await fault(f"redis://{server.address}")
    finally:
        server.call("CONFIG SET", "requirepass", "", password="secret")


async def test_sentinel_where_a_server_is_meant(server: RedisServer, tmp_path: Any) -> None:
    sentinel = watch(server, tmp_path / "sentinel", "requirepass secret")
    with running(sentinel):
        assert "this is a Sentinel: write redis+sentinel://" in await fault(f"redis://:secret@{sentinel.address}")
        assert "names no primary" in await fault(
            f"redis+sentinel://{sentinel.address}/another?sentinel_password=secret"
        )
        assert "the Sentinels want another user or password" in await fault(
            f"redis+sentinel://{sentinel.address}/of-rollout"
        )


async def test_a_connection_that_is_closed_while_it_is_used(server: RedisServer) -> None:
    """At every step of a call, as redis-py's own tasks close them after a failover."""
    said = set()
    async with aclosing(await connect(f"redis://{server.address}")) as redis:
        assert isinstance(redis, Server)
        for steps in range(30):
            call = asyncio.create_task(guarded(redis.ping()))
            for _ in range(steps):
                await asyncio.sleep(0)
            for connection in list(redis.connection_pool._in_use_connections):
                await connection.disconnect(nowait=True)
            try:
                await call
            except StoreUnavailableError as error:
                said.add(reason(error))
    assert "Redis does not answer: the connection was closed while it was used" in said


async def test_a_mistake_of_ours_is_no_fault_of_redis() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        await guarded(mistake())


async def mistake() -> None:
    raise AttributeError("nothing")


async def guarded(call: Awaitable[Any]) -> None:
    async with guard():
        await call


async def test_too_few_replicas_to_confirm(server: RedisServer) -> None:
    detail = await fault(f"redis://{server.address}?replicas=1", write_in_script)
    assert detail == "of 1 replicas that must have what is stored, 0 confirmed it in time"


async def test_what_an_earlier_try_stored_waits_for_its_replica_too(tmp_path: Path) -> None:
    """It writes nothing the second time, and a replica that is there but behind does not have the first."""
    primary = RedisServer(tmp_path / "primary")
    replica = RedisServer(tmp_path / "replica", f"replicaof {ADDRESS} {primary.port}")
    once = "if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SET', KEYS[1], 1) end"
    with running(primary, replica):
        wait_until(lambda: primary.call("WAIT", 1, 100) == 1)
        url = f"redis://{primary.address}?replicas=1"
        replica.freeze()
        for _ in range(2):
            async with aclosing(await connect(url)) as redis:
                with pytest.raises(StoreUnavailableError, match="0 confirmed it in time"):
                    await run_script(redis, once, ["rollout:{m}:x"])
        replica.freeze(thaw=True)
        async with aclosing(await connect(url)) as redis:
            give_up = time.monotonic() + PATIENCE_S
            while True:  # until the replica has caught up
                try:
                    await run_script(redis, once, ["rollout:{m}:x"])
                    break
                except StoreUnavailableError:
                    assert time.monotonic() < give_up
        assert replica.call("GET", "rollout:{m}:x") == b"1"
