"""Different clients of a trial, over all replicas."""

from __future__ import annotations

import pytest

from rollout.keys import Keys
from rollout.routing.client_counts import add_clients, count_clients
from rollout.routing.traffic import EVIDENCE_KEPT_S
from rollout.store import Redis


async def test_nobody(redis: Redis) -> None:
    assert await count_clients(redis, "digits", [3]) == {"control": 0, "challenger": 0}
    await add_clients(redis, "digits", 3, {"control": set()})
    assert await redis.keys() == []


async def test_clients_count_once_whoever_met_them(redis: Redis) -> None:
    await add_clients(redis, "digits", 3, {"control": {"a", "b"}, "challenger": {"ü"}})
    await add_clients(redis, "digits", 3, {"control": {"b", "c"}})
    await add_clients(redis, "digits", 4, {"control": {"d"}})
    await add_clients(redis, "texts", 3, {"control": {"e"}})
    assert await count_clients(redis, "digits", [3]) == {"control": 3, "challenger": 1}
    assert await count_clients(redis, "digits", [3, 4]) == {"control": 4, "challenger": 1}, "each once"


async def test_many_clients_within_the_error(redis: Redis) -> None:
    for start in range(0, 50_000, 10_000):
        ids = {f"client-{number}" for number in range(start, start + 10_000)}
        await add_clients(redis, "digits", 3, {"challenger": ids})
    assert (await count_clients(redis, "digits", [3]))["challenger"] == pytest.approx(50_000, rel=4 * 0.0081)


async def test_they_expire(redis: Redis) -> None:
    await add_clients(redis, "digits", 3, {"control": {"a"}})
    assert EVIDENCE_KEPT_S - 5 < await redis.ttl(Keys("digits").clients(3, "control")) <= EVIDENCE_KEPT_S
