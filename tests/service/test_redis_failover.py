"""The primary of a Sentinel, and of a cluster, goes under load: nothing that was promised is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from rollout.errors import StoreUnavailableError
from rollout.keys import Keys
from rollout.review.queue import list_items
from rollout.store import connect
from tests.conftest import Service, run_service, set_split
from tests.images import three_or_eight
from tests.redis_servers import (
    ADDRESS,
    PRIMARY,
    RedisServer,
    form_cluster,
    node_settings,
    running,
    wait_until,
    watch,
)

USER = "rollout:secret"
PAUSE_S = 0.02


class Setup(NamedTuple):
    """Redis as production has it.

    Attributes:
        url: Where Rollout finds it.
        primary: The server that has the model's keys at first.
    """

    url: str
    primary: RedisServer


@contextmanager
def sentinel(folder: Path, acl: str) -> Iterator[Setup]:
    user = ["appendonly yes", "repl-diskless-sync-delay 0", acl]
    primary = RedisServer(folder / "primary", *user)
    replica = RedisServer(folder / "replica", *user, f"replicaof {ADDRESS} {primary.port}")
    sentinels = [watch(primary, folder / f"sentinel-{number}", quorum=2) for number in range(3)]
    with running(primary, replica, *sentinels):
        for each in sentinels:

            def knows_all(each: RedisServer = each) -> bool:
                state = str(each.call("SENTINEL MASTER", PRIMARY))
                return "'num-slaves': 1" in state and "'num-other-sentinels': 2" in state

            wait_until(knows_all)
        hosts = ",".join(each.address for each in sentinels)
        wait_until(lambda: primary.call("WAIT", 1, 100) == 1)
        yield Setup(f"redis+sentinel://{USER}@{hosts}/{PRIMARY}/0?replicas=1", primary)


@contextmanager
def cluster(folder: Path, acl: str) -> Iterator[Setup]:
    nodes = [
        RedisServer(folder / f"node-{number}", *node_settings("repl-diskless-sync-delay 0", acl))
        for number in range(6)
    ]
    with running(*nodes):
        form_cluster(nodes, 3)
        slot = nodes[0].call("CLUSTER KEYSLOT", Keys("digits").split)
        primary = nodes[slot * 3 // 16384]
        wait_until(lambda: primary.call("WAIT", 1, 100) == 1)
        hosts = ",".join(node.address for node in nodes[:3])
        yield Setup(f"redis+cluster://{USER}@{hosts}?replicas=1", primary)


def send_until(client: httpx.Client, fates: dict[str, str], fate: str, count: int) -> None:
    """Sends what the model is unsure of until so many in a row meet one fate; every prediction is answered."""
    give_up = time.monotonic() + 240
    met = 0
    while met < count:
        key = f"order-{len(fates)}"
        body = {"client_id": key, "key": key, "inputs": {"image": three_or_eight()}}
        answer = client.post("/v1/models/digits/predict", json=body)
        assert answer.status_code == 200, answer.text
        fates[key] = answer.json()["review"]
        met = met + 1 if fates[key] == fate else 0
        assert time.monotonic() < give_up, fates
        time.sleep(PAUSE_S)


async def find_kept(url: str) -> set[str | None]:
    """Returns the keys of all items; none while Redis does not answer in time."""
    with suppress(StoreUnavailableError):
        async with aclosing(await connect(url)) as redis:
            return {item.key async for item, _ in list_items(redis, "digits", {})}
    return set()


def wait_for_all(service: Service, url: str, fates: dict[str, str]) -> None:
    give_up = time.monotonic() + 240
    while missing := fates.keys() - asyncio.run(find_kept(url)):
        assert time.monotonic() < give_up, (missing, service.log.read_text())
        time.sleep(0.2)


@pytest.mark.parametrize("kind", [sentinel, cluster])
def test_nothing_promised_is_lost(bundles: str, tmp_path: Path, redis_acl: str, kind: object) -> None:
    assert callable(kind)
    home = tmp_path / "home"
    fates: dict[str, str] = {}
    with kind(tmp_path / "redis", redis_acl.format("secret")) as redis:
        url = {"ROLLOUT_REDIS_URL": redis.url}
        set_split(home, "--champion", "v1", **url)
        with run_service(home, None, **url) as service, service.client() as client:
            send_until(client, fates, "queued", 50)
            redis.primary.kill()
            send_until(client, fates, "deferred", 5)
            # The replica has taken over; what is acknowledged waits for a replica again, which comes back here.
            redis.primary.start()
            send_until(client, fates, "queued", 50)
            assert set(fates.values()) == {"queued", "deferred"}
            wait_for_all(service, redis.url, fates)
            with service.admin() as admin:
                revision = admin.get("/v1/models/digits/split").json()["revision"]
                change = admin.put(
                    "/v1/models/digits/split", json={"champion": "v2"}, headers={"If-Match": f'"{revision}"'}
                )
                assert change.status_code == 200, change.text
            assert service.stop() == 0
        assert "Traceback" not in service.log.read_text()
