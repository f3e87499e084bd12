"""Killed without warning, again and again: what a response called queued or deferred is there afterwards, once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from redis import Redis as AnyRedis

from rollout.review.queue import list_items
from rollout.store import connect
from rollout.valkey_server import ValkeyServer
from tests.conftest import Service, run_service, set_split
from tests.images import three_or_eight

KILLS = 6
CALLERS = 8


class Victims:
    """A service and its Valkey, which are killed; the service looks after its Valkey and its workers."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        self.stack = stack
        self.url = ValkeyServer(home.resolve() / "valkey").url
        self.service: Service | None = None

    def start_service(self) -> None:
        self.service = self.stack.enter_context(run_service(self.home))

    def kill_redis(self) -> None:
        with AnyRedis.from_url(self.url) as client:
            server = psutil.Process(client.info("server")["process_id"])
        server.kill()
        server.wait()

    def kill_worker(self) -> None:
        assert self.service is not None
        random.choice(self.service.workers()).kill()

    def kill_service(self) -> None:
        assert self.service is not None
        children = psutil.Process(self.service.process.pid).children(recursive=True)
        os.kill(self.service.process.pid, signal.SIGKILL)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.service.process.wait()


class Callers:
    """Callers who send one uncertain image after the other, and remember what they were told."""

    def __init__(self, victims: Victims) -> None:
        self.victims = victims
        self.promised: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.sent = 0

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._call()) for _ in range(CALLERS)]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def hear(self, fate: str) -> None:
        """Waits until a few more callers are told this."""
        wanted = self.told[fate] + 20
        async with asyncio.timeout(200):
            while self.told[fate] < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _call(self) -> None:
        while True:
            assert self.victims.service is not None
            self.sent += 1
            key = f"order-{self.sent}"
            body = {"client_id": f"c-{self.sent}", "key": key, "inputs": {"image": three_or_eight()}}
            with suppress(httpx.HTTPError):
                async with httpx.AsyncClient(base_url=self.victims.service.base, timeout=10) as client:
                    answer = await client.post("/v1/models/digits/predict", json=body)
                    if answer.status_code == 200 and (fate := answer.json()["review"]):
                        self.told[fate] += 1
                        self.promised[key] += 1
            await asyncio.sleep(0.005)


async def test_what_was_promised_is_there_once(bundles: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        victims = Victims(tmp_path, stack)
        set_split(tmp_path, "--champion", "v1")
        await asyncio.to_thread(victims.start_service)
        callers = Callers(victims)
        kinds = [("redis", "worker", "service")[number % 3] for number in range(KILLS)]
        random.shuffle(kinds)
        async with callers.calling():
            for kind in kinds:
                await callers.hear("queued")
                await asyncio.sleep(random.uniform(0, 0.5))
                if kind == "redis":
                    await asyncio.to_thread(victims.kill_redis)
                elif kind == "worker":
                    victims.kill_worker()
                else:
                    await asyncio.to_thread(victims.kill_service)
                    await asyncio.to_thread(victims.start_service)
            await callers.hear("queued")
        missing = await wait_for(victims.url, set(callers.promised))
        assert not missing, f"of {len(callers.promised):,} items {len(missing):,} are lost, after {kinds}"


async def wait_for(url: str, promised: set[str]) -> set[str]:
    """Waits until the spool is drained; returns what is not there then, and fails for what is there twice."""
    redis = await connect(url)
    missing = promised
    for _ in range(240):
        found = Counter([item.key async for item, _ in list_items(redis, "digits", {})])
        assert not [key for key, times in found.items() if times > 1]
        missing = promised - set(found)
        if not missing:
            break
        await asyncio.sleep(0.5)
    await redis.aclose()
    return missing


@pytest.fixture(autouse=True)
def _say_the_seed() -> None:
    seed = random.randrange(10**6)
    random.seed(seed)
    print(f"seed {seed}")  # noqa: T201
