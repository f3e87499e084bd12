"""Redis goes and comes back, and a replica is started while it is gone: the last split holds, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.fleet import Valkey
from rollout.routing.assignment import assign
from rollout.routing.split import Split
from tests.conftest import TRIAL, run_service, set_split
from tests.images import row, three_or_eight

SPLIT = Split(champion="v1", challenger="v2", share=0.1, experiment="digits-v1-v2")


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.kill()


def check_arms(client: httpx.Client, revision: int) -> None:
    """Everybody gets the arm that the split gives them."""
    for number in range(60):
        response = client.post("/v1/models/digits/predict", json=row(client_id=f"c-{number}"))
        assert response.status_code == 200, response.text
        answer = response.json()
        assert (answer["arm"], answer["revision"]) == (assign(SPLIT, f"c-{number}").arm, revision)


def unsure(client: httpx.Client, key: str) -> str:
    """Sends what the model is unsure of; returns what became of its review item."""
    body = {"client_id": f"c-{key}", "key": key, "inputs": {"image": three_or_eight()}}
    return str(client.post("/v1/models/digits/predict", json=body).json()["review"])


def test_the_last_split_holds_over_a_restart_without_redis(bundles: str, tmp_path: Path, valkey: Valkey) -> None:
    home = tmp_path / "home"
    url = {"ROLLOUT_REDIS_URL": valkey.url}
    set_split(home, *TRIAL, **url)
    with run_service(home, None, **url) as service, service.client() as client:
        check_arms(client, 1)
        assert unsure(client, "before") == "queued"
        valkey.kill()
        check_arms(client, 1)
        assert unsure(client, "without") == "deferred"
        with service.admin() as admin:
            assert admin.get("/v1/models/digits/split").json()["revision"] == 1
            change = admin.put("/v1/models/digits/split", json={"champion": "v1"}, headers={"If-Match": '"1"'})
        assert (change.status_code, change.json()["type"]) == (503, "urn:rollout:problem:store-unavailable")
        assert service.stop() == 0
    with run_service(home, None, **url) as service, service.client() as client:
        assert "the splits that were last seen here hold" in service.log.read_text()
        check_arms(client, 1)
        assert unsure(client, "restarted") == "deferred"
        valkey.start()
        set_split(home, "--champion", "v2", **url)
        since = time.monotonic()
        while client.get("/v1/models/digits").json()["split"]["revision"] != 2:
            assert time.monotonic() < since + 60
            time.sleep(0.05)
        with service.admin() as admin:
            give_up = time.monotonic() + 60
            while {item["key"] for item in admin.get("/v1/models/digits/reviews").json()["reviews"]} != {
                "before",
                "without",
                "restarted",
            }:
                assert time.monotonic() < give_up
                time.sleep(0.2)


def test_a_first_start_without_redis_says_so(bundles: str, tmp_path: Path) -> None:
    gone = {"ROLLOUT_REDIS_URL": "redis://127.0.0.1:1/0"}
    with pytest.raises(AssertionError, match="Redis does not answer"), run_service(tmp_path, None, **gone):
        pass
