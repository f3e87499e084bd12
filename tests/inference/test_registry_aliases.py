"""The aliases in a real MLflow registry follow the split, whichever way it is changed."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from rollout import metrics
from rollout.bundle.manifest import digest
from rollout.bundle.store import open_bundle
from rollout.inference import registry_aliases as module
from rollout.inference.registry_aliases import RegistryAliases
from rollout.judge.verdict import Verdict
from rollout.mlflow_server import MlflowServer
from rollout.routing.by_itself import carry_out_act
from rollout.routing.control import carry_out, propose_rollback
from rollout.routing.splits import write_split
from rollout.store import Redis
from tests.commands import rollout
from tests.conftest import TRIAL, free_port, run_service, set_split
from tests.mlflow_servers import Mlflow, mlflow_server
from tests.review.test_webhook import until
from tests.routing.trials import SPLIT

PROVEN = Verdict(verdict="promote", reason="proven", detail="it is as good")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.2)


def register(server: Mlflow, model: str, digests: dict[str, str]) -> dict[str, str]:
    """Registers bundles as builds do, and returns the versions that they are there."""
    server.post("registered-models/create", name=model)
    run = server.post("runs/create", experiment_id="0")["run"]["info"]
    versions = {}
    for version, known in digests.items():
        tags = [{"key": "rollout.digest", "value": known}]
        made = server.post(
            "model-versions/create", name=model, source=run["artifact_uri"], run_id=run["run_id"], tags=tags
        )
        versions[version] = made["model_version"]["version"]
    return versions


@asynccontextmanager
async def following(redis: Redis, model: str, url: str) -> AsyncIterator[RegistryAliases]:
    aliases = RegistryAliases(redis, model, MlflowServer(url, {}))
    task = asyncio.create_task(aliases.run())
    yield aliases
    task.cancel()
    await asyncio.wait([task])


async def test_aliases_follow_a_trial_its_promotion_and_what_is_taken_back(redis: Redis, server: Mlflow) -> None:
    known = register(server, "digits", SPLIT.digests)
    trial = {"champion": known["v1"], "challenger": known["v2"]}
    async with following(redis, "digits", server.url):
        split = await write_split(redis, "digits", SPLIT)
        await until(lambda: server.aliases("digits") == trial)
        await carry_out_act(redis, "digits", split, "promote", PROVEN)
        await until(lambda: server.aliases("digits") == {"champion": known["v2"]})
        server.post("registered-models/alias", name="digits", alias="champion", version=known["v1"])
        await until(lambda: server.aliases("digits") == {"champion": known["v2"]})
    async with following(redis, "digits", server.url):
        await carry_out(redis, await propose_rollback(redis, "digits"), "ada", "it is worse")
        await until(lambda: server.aliases("digits") == {"champion": known["v1"]})


async def test_a_bundle_that_is_not_registered_is_named_and_leaves_the_alias(
    redis: Redis, server: Mlflow, caplog: pytest.LogCaptureFixture
) -> None:
    known = register(server, "half", {"v1": "one"})
    split = await write_split(redis, "half", SPLIT)
    async with following(redis, "half", server.url) as aliases:
        await until(lambda: caplog.records)
        assert "the registry has no version for half:v2" in caplog.text
        assert "`rollout build` registers a bundle" in caplog.text
        promoted = await carry_out_act(redis, "half", split, "promote", PROVEN)
        await until(lambda: aliases._looked[0] == promoted.revision)
        assert server.aliases("half") == {"champion": known["v1"]}


async def test_a_registry_that_is_away_is_said_once_and_holds_up_no_change(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    url = f"http://127.0.0.1:{free_port()}"
    asked = metrics.ALIASES.labels("lost", "failed")
    with caplog.at_level(logging.WARNING):
        async with following(redis, "lost", url):
            await write_split(redis, "lost", SPLIT)
            await until(lambda: asked._value.get() > 3)
    (record,) = caplog.records
    assert f"{url} does not answer" in record.message
    assert "MLFLOW_TRACKING_URI" in record.message


def wait_until(is_so: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def test_a_service_sets_aliases_after_changes_by_the_command_and_over_http(
    bundles: str, server: Mlflow, tmp_path: Path
) -> None:
    digests = {version: digest(open_bundle(f"digits:{version}")[1]) for version in ("v1", "v2")}
    uri = server.url.replace("//", "//ada:sesame@")
    for name in server.get("registered-models/search").get("registered_models", []):
        server.delete("registered-models/delete", name=name["name"])
    known = register(server, "digits", digests)
    set_split(tmp_path, *TRIAL)
    with run_service(tmp_path, MLFLOW_TRACKING_URI=uri) as service, service.admin() as admin:
        wait_until(lambda: server.aliases("digits") == {"champion": known["v1"], "challenger": known["v2"]})
        home = {"ROLLOUT_HOME": str(tmp_path)}
        done = rollout("split", "promote", "digits", "--yes", environment=os.environ | home)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: server.aliases("digits") == {"champion": known["v2"]})
        split = admin.get("/v1/models/digits/split")
        wanted = {"champion": "v1", "challenger": "v2", "share": 0.2}
        changed: httpx.Response = admin.put(
            "/v1/models/digits/split",
            content=msgspec.json.encode(wanted),
            headers={"If-Match": split.headers["ETag"], "Content-Type": "application/json"},
        )
        assert changed.status_code == 200, changed.text
        wait_until(lambda: server.aliases("digits") == {"champion": known["v1"], "challenger": known["v2"]})
        assert service.metric("rollout_registry_aliases_total", 'fate="set"') >= 4
        assert "sesame" not in service.log.read_text()
