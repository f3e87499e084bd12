"""Redis: the only place that connects to it and spells its key names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from rollout.errors import StoreUnavailableError

__all__ = ["Keys", "Redis", "client_of", "connect", "guard", "is_cancelled", "require_supported"]

TIMEOUT_S = 1.0
OLDEST = {"redis": 7, "valkey": 8}


class Keys(NamedTuple):
    """The names of a model's keys. The braces keep them in one slot of a cluster, as its scripts need."""

    model: str

    @property
    def split(self) -> str:
        """The split, JSON."""
        return f"rollout:{{{self.model}}}:split"

    @property
    def split_history(self) -> str:
        """Every revision of the split, a list of JSON, oldest first. Owned by the model's admins."""
        return f"rollout:{{{self.model}}}:split:history"

    @property
    def quarantine(self) -> str:
        """Versions that were rolled back, a hash of JSON by digest. Owned by the model's admins."""
        return f"rollout:{{{self.model}}}:quarantine"

    def traffic(self, tick: int) -> str:
        """What was answered in ten seconds, a hash of counts. Expires after an hour."""
        return f"rollout:{{{self.model}}}:traffic:{tick}"

    @property
    def workers(self) -> str:
        """The workers that serve this model, a hash of JSON. A worker that is silent for a minute is removed."""
        return f"rollout:{{{self.model}}}:workers"

    @property
    def open_reviews(self) -> str:
        """The IDs of open review items, a sorted set by time in milliseconds. Bounded by ROLLOUT_MAX_REVIEWS."""
        return f"rollout:{{{self.model}}}:reviews:open"

    def review(self, item_id: str) -> str:
        """One review item, JSON."""
        return f"rollout:{{{self.model}}}:review:{item_id}"


def client_of(url: str) -> Redis:
    """Returns a client that connects when it is first used."""
    return Redis.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        # One retry, for a connection that died while it lay in the pool. A server that hangs is waited for once.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
    )


async def connect(url: str) -> Redis:
    """Connects to Redis 7, Valkey 8 or later.

    Raises:
        StoreUnavailableError: If it does not answer, or is too old.
    """
    client = client_of(url)
    try:
        await require_supported(client)
    except StoreUnavailableError as error:
        await client.aclose()
        raise StoreUnavailableError(f"{printable(url)}: {error.detail}") from error
    return client


async def require_supported(client: Redis) -> None:
    """Refuses a server that is too old.

    Raises:
        StoreUnavailableError: If it does not answer, or is too old.
    """
    try:
        async with guard():
            await client.ping()  # while it still reads its data, it refuses this
            info = await client.info("server")
    except StoreUnavailableError as error:
        raise StoreUnavailableError(f"Redis does not answer: {error.__cause__}") from error
    kind = "valkey" if "valkey_version" in info else "redis"
    version = str(info[f"{kind}_version"])
    if int(version.split(".", maxsplit=1)[0]) < OLDEST[kind]:
        raise StoreUnavailableError(f"this is {kind} {version}; Redis 7, Valkey 8 or later is needed")


@asynccontextmanager
async def guard() -> AsyncIterator[None]:
    """Turns every failure of Redis inside the block into ``StoreUnavailableError``."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailableError("Redis does not answer; try again shortly") from error


def is_cancelled() -> bool:
    """Whether the running task is to end; redis-py may turn that into a failed connection, which is caught."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def printable(url: str) -> str:
    """Returns a Redis URL without its password."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@")
