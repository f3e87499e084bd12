"""Gates: a tool that sends no token goes by the status, and learns nothing but the verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml

from rollout.errors import StoreUnavailableError
from rollout.http import gates as module
from rollout.http.gates import Gates
from rollout.http.known import PATH
from rollout.inference import gauges
from rollout.routing.assignment import Arm
from rollout.routing.traffic import Worker, add_traffic
from rollout.store import Redis
from tests.conftest import ROOT, TRIAL, Service, run_service, set_split
from tests.k8s.test_canary import outcome

OVERLAYS = ROOT / "k8s" / "overlays"
# What Flagger sends: pkg/controller/webhook.go and CanaryWebhookPayload of its API.
FLAGGER = {
    "name": "rollout",
    "namespace": "rollout",
    "phase": "Progressing",
    "checksum": "85d557f47b",
    "metadata": {},
}
HOOKS = {
    hook["type"]: httpx.URL(hook["url"])
    for hook in yaml.safe_load((OVERLAYS / "flagger" / "canary.yaml").read_text())["spec"]["analysis"]["webhooks"]
}
APP = "app-token-0123456789"


@pytest.fixture
def guarded(bundles: str, tmp_path: Path, redis: Redis, valkey_url: str) -> Iterator[Service]:
    set_split(tmp_path, *TRIAL, ROLLOUT_REDIS_URL=valkey_url)
    with run_service(
        tmp_path, ROLLOUT_TOKENS=f"app:{APP}", ROLLOUT_REDIS_URL=valkey_url, ROLLOUT_WORKERS="1"
    ) as running:
        yield running


def call(client: httpx.Client, hook: str) -> httpx.Response:
    """Calls a webhook as Flagger does: whatever is no 2xx is a no."""
    url = HOOKS[hook]
    return client.post(url.path, json=FLAGGER, headers={"Host": url.host})


async def fail(redis: Redis) -> None:
    """Adds what 10,000 requests leave of which the challenger failed in every second."""
    counts: dict[tuple[Arm, str, str], int] = {}
    failures: dict[Arm, int] = {"control": 0, "challenger": 5_000}
    for arm, failed in failures.items():
        for name, count in (("requests", 10_000), ("rows", 10_000), ("failures", failed)):
            counts[arm, "v1", f"evidence.1.{name}"] = count
    await add_traffic(redis, "digits", counts, Worker(id="a", revision=1, variants={}))


async def test_all_who_ask_at_once_wait_for_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """They need no token: with Redis away, each would have waited for all before it."""
    looks: list[str] = []

    async def read_split(_: object, name: str) -> None:
        looks.append(name)
        await asyncio.sleep(0)
        raise StoreUnavailableError("Redis does not answer")

    monkeypatch.setattr(module, "read_split", read_split)
    engine = SimpleNamespace(model=lambda name: SimpleNamespace(name=name), redis=None)
    gates: Any = Gates(SimpleNamespace(engine=engine))  # type: ignore[arg-type]
    digits, other = (SimpleNamespace(path_params={"model": name}) for name in ("digits", "other"))
    found = await asyncio.gather(
        *(gates._answer("go-on", asked) for asked in [digits] * 50 + [other] * 50), return_exceptions=True
    )
    assert {type(each) for each in found} == {StoreUnavailableError}
    assert sorted(looks) == ["digits", "other"]


async def test_flagger_and_argo_go_by_the_verdict(guarded: Service, redis: Redis) -> None:
    with guarded.client() as client:
        assert client.post("/gates/digits/go-on").json() == {
            "model": "digits",
            "gate": "go-on",
            "is_open": True,
            "verdict": "hold",
        }
        assert call(client, "rollback").status_code == 409
        assert call(client, "confirm-promotion").status_code == 200
        assert client.post("/gates/digits/promote").status_code == 409
        assert client.post("/gates/none/go-on").status_code == 404, "a typing error halts"
        assert client.post("/gates/digits/none").status_code == 404
        assert client.get("/gates/digits/go-on").status_code == 405
        await fail(redis)
        give_up = time.monotonic() + 4 * gauges.SHOW_EVERY_S
        while call(client, "rollback").status_code != 200:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.1)
        assert call(client, "confirm-promotion").status_code == 409
        # Argo Rollouts asks with a token, and reads {$.verdict} of the body.
        path = f"{PATH}/verdict".replace("{model}", "digits")
        assert client.get(path).status_code == 401
        host = {"Host": "rollout-canary.rollout.svc"}
        answer = client.get(path, headers=host | {"Authorization": f"Bearer {APP}"})
        assert (answer.status_code, answer.json()["verdict"]) == (200, "rollback")
        assert outcome("verdict", answer.json()["verdict"]) == "bad"
