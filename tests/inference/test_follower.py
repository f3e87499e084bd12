"""A split may name a bundle that is not here yet: it is waited for, and nobody restarts anything."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from rollout.bundle import store
from rollout.config import Settings
from rollout.inference import discovery
from rollout.inference import follower as follower_module
from rollout.inference.engine import Engine
from rollout.inference.served_model import ServedModel
from rollout.inference.version import LoadedVersion
from rollout.routing.split import Split
from rollout.routing.split_cache import cached_splits
from rollout.routing.splits import write_split
from rollout.routing.traffic import Worker, read_workers
from rollout.store import Redis, connect
from tests.cli.test_cli import run
from tests.conftest import Service, run_service, set_split, wait_for_metric
from tests.images import image
from tests.service.test_challenger import CHALLENGED

HALF = ("--champion", "v1", "--challenger", "v2", "--share", "0.5")
MISSING = "there is no bundle digits:v2; `rollout ls` shows what the store has"


@pytest.fixture
def there(bundles: str, tmp_path: Path) -> Path:
    """Where ``digits:v2`` was pushed to."""
    run(tmp_path, "push", "digits:v2", str(tmp_path / "there"))
    return tmp_path / "there"


@pytest.fixture
def here(bundles: str, tmp_path: Path) -> Path:
    """The store of a replica that has ``digits:v1`` only."""
    models = tmp_path / "store" / "models" / "digits"
    models.mkdir(parents=True)
    shutil.copytree(f"{bundles}/models/digits/v1", models / "v1")
    return tmp_path / "store"


def ask(service: Service) -> dict[str, Any]:
    """Predicts for a client of the challenger."""
    with service.client() as client:
        body = {"client_id": CHALLENGED[0], "inputs": {"image": image()}}
        response = client.post("/v1/models/digits/predict", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def wait_for_the_challenger(service: Service) -> None:
    give_up = time.monotonic() + 60
    while (answer := ask(service))["version"] != "v2":
        assert (answer["arm"], answer["fallback"]) in (("champion", None), ("challenger", "missing"))
        assert time.monotonic() < give_up, service.log.read_text()
        time.sleep(0.1)
    assert (answer["arm"], answer["fallback"]) == ("challenger", None)


def wait_until_shown(home: Path, *, is_refused: bool) -> None:
    """Waits until ``rollout split show`` says that the replica refuses to follow, or no longer does."""
    give_up = time.monotonic() + 60
    while ("refused to follow" in run(home, "split", "show", "digits")) is not is_refused:
        assert time.monotonic() < give_up
        time.sleep(0.2)


def test_a_running_replica_follows_once_the_bundle_comes(there: Path, here: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    set_split(home, "--champion", "v1")
    with run_service(home, BENTOML_HOME=str(here), ROLLOUT_WORKERS="1") as service:
        set_split(home, *HALF)  # by somebody who has the bundle
        wait_until_shown(home, is_refused=True)
        answer = ask(service)
        assert (answer["version"], answer["revision"]) == ("v1", 1)
        assert f"refused to follow: {MISSING}" in " ".join(run(home, "split", "show", "digits").split())
        run(home, "pull", str(there), BENTOML_HOME=str(here))
        wait_for_the_challenger(service)
        assert ask(service)["revision"] == 2
        log = service.log.read_text()
        assert log.count(f"digits stays at revision 1: {MISSING}; it follows as soon as the bundle is here") == 1
        assert "digits is at revision 2: v1, v2" in log
        wait_until_shown(home, is_refused=False)


def test_a_challenger_that_is_missing_at_the_start_comes_in_later(
    there: Path, here: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    set_split(home, *HALF)
    with run_service(home, BENTOML_HOME=str(here), ROLLOUT_WORKERS="1") as service:
        answer = ask(service)
        assert (answer["version"], answer["arm"], answer["fallback"]) == ("v1", "challenger", "missing")
        with service.client() as client:
            wait_for_metric(client, 1, "rollout_fallbacks_total", 'why="missing"')
        time.sleep(2)
        kept = json.loads((home / "splits" / "digits.json").read_text())
        assert kept["challenger"] == "v2", "a start without Redis must not forget the trial"
        run(home, "pull", str(there), BENTOML_HOME=str(here))
        wait_for_the_challenger(service)
        log = service.log.read_text()
    assert (
        log.count(f"{MISSING}; its clients get the champion, v1; it follows as soon as the bundle is here") == 1
    )
    assert "digits is at revision 1: v1, v2" in log


@pytest.fixture
async def engine(
    here: Path, redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    """A replica at revision 1, ``v1`` alone."""
    monkeypatch.setattr(store, "_models", lambda: here / "models")
    monkeypatch.setattr(follower_module, "FOLLOW_EVERY_S", 0.05)
    await write_split(redis, "digits", Split(champion="v1"))
    loaded = await Engine.load(Settings(home=tmp_path / "home"), await connect(valkey_url))
    yield loaded
    await loaded.close()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each version was loaded, or tried to be."""
    tried: Counter[str] = Counter()

    def load(model: str, version: str, settings: Settings) -> LoadedVersion:
        tried[version] += 1
        return LoadedVersion(model, version, settings)

    monkeypatch.setattr(follower_module, "LoadedVersion", load)
    return tried


async def test_a_start_waits_for_no_challenger_that_does_not_end_loading(
    here: Path,
    bundles: str,
    redis: Redis,
    valkey_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried: Counter[str] = Counter()
    ends = threading.Event()

    def load(model: str, version: str, settings: Settings) -> LoadedVersion:
        tried[version] += 1
        if version == "v2":
            ends.wait()
        return LoadedVersion(model, version, settings)

    shutil.copytree(f"{bundles}/models/digits/v2", here / "models" / "digits" / "v2")
    monkeypatch.setattr(store, "_models", lambda: here / "models")
    monkeypatch.setattr(follower_module, "FOLLOW_EVERY_S", 0.05)
    monkeypatch.setattr(follower_module, "PATIENCE_S", 0.2)
    monkeypatch.setattr(follower_module, "LoadedVersion", load)
    split = Split(champion="v1", challenger="v2", share=0.5, experiment="x")
    await write_split(redis, "digits", split)
    loading = asyncio.create_task(Engine.load(Settings(home=tmp_path / "home"), await connect(valkey_url)))
    await asyncio.wait({loading}, timeout=30)
    try:
        assert loading.done()
        engine = loading.result()
        await asyncio.sleep(0.2)
        assert engine.model("digits").versions.keys() == {"v1"}
        assert caplog.text.count("digits:v2 takes long to load: its clients get the champion until it is") == 1
    finally:
        ends.set()
        engine = await loading
    give_up = time.monotonic() + 60
    while engine.model("digits").versions.keys() != {"v1", "v2"}:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)
    assert tried == {"v1": 1, "v2": 1}
    await engine.close()


async def test_a_model_that_does_not_end_loading_hides_no_other(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = asyncio.Event()

    async def load(name: str, split: Split, settings: Settings, redis: Redis) -> ServedModel:
        if name == "endless":
            await ends.wait()
        return SimpleNamespace(name=name)  # type: ignore[return-value]  # nothing else is asked of it

    monkeypatch.setattr(discovery, "bundle_names", lambda: {"endless", "later"})
    monkeypatch.setattr(discovery, "load_model", load)
    monkeypatch.setattr(discovery, "PATIENCE_S", 0.1)
    for name in ("endless", "later"):
        await write_split(redis, name, Split(champion="v1"))
    served: dict[str, ServedModel] = {}
    work = discovery.Discovery(
        served, redis, Settings(home=tmp_path), lambda model: served.update({model.name: model})
    )
    async with asyncio.timeout(30):
        await work.look()
        assert served.keys() == {"later"}
        await work.look()
        ends.set()
        await asyncio.sleep(0)
        await work.look()
    assert served.keys() == {"endless", "later"}


async def worker(redis: Redis, *, is_in_trouble: bool = False) -> Worker:
    """What the replica says of itself."""
    give_up = time.monotonic() + 60
    while not (found := await read_workers(redis, "digits")) or bool(found[0].refused) != is_in_trouble:
        assert time.monotonic() < give_up, found
        await asyncio.sleep(0.05)
    return found[0]


async def reach(engine: Engine, revision: int) -> None:
    give_up = time.monotonic() + 60
    while engine.model("digits").split.revision != revision:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


async def test_it_says_what_it_waits_for_and_loads_nothing_twice(
    engine: Engine, redis: Redis, loads: Counter[str], bundles: str, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The champion of the new split is here and its challenger is not."""
    models = here / "models" / "digits"
    shutil.copytree(f"{bundles}/models/digits/v2", models / "v2")
    split = Split(revision=1, champion="v2", challenger="v3", share=0.5, experiment="x")
    await write_split(redis, "digits", split)
    give_up = time.monotonic() + 60
    while loads["v3"] < 5:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)
    assert loads["v2"] == 1
    told = await worker(redis, is_in_trouble=True)
    assert told.revision == 1
    assert "there is no bundle digits:v3" in told.refused
    assert caplog.text.count("there is no bundle digits:v3") == 1
    await write_split(redis, "digits", msgspec.structs.replace(split, revision=2, challenger="v1"))
    await reach(engine, 3)
    assert loads["v2"] == 1, "what was loaded for the split before serves"
    await worker(redis)
    assert engine._runtimes["digits"].follower._loading == {}


async def test_a_refused_bundle_is_loaded_again_only_after_somebody_wrote_to_it(
    engine: Engine,
    redis: Redis,
    loads: Counter[str],
    bundles: str,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "SETTLED_S", 0)
    damaged = here / "models" / "digits" / "v2"
    shutil.copytree(f"{bundles}/models/digits/v2", damaged)
    whole = (damaged / "golden.npz").read_bytes()
    (damaged / "golden.npz").write_bytes(whole + b"x")
    trial = Split(revision=1, champion="v1", challenger="v2", share=0.5, experiment="x")
    await write_split(redis, "digits", trial)
    assert "golden.npz was changed after packing" in (await worker(redis, is_in_trouble=True)).refused
    await asyncio.sleep(0.5)
    assert loads == {"v2": 1}
    assert engine.model("digits").split.revision == 1
    assert cached_splits(tmp_path / "home")["digits"].revision == 1
    (damaged / "golden.npz").write_bytes(whole)  # as a copy that had stopped for long, and goes on
    await reach(engine, 2)
    assert loads == {"v2": 2}


async def test_a_wait_ends_with_the_split_that_asked_for_it(
    engine: Engine, redis: Redis, loads: Counter[str]
) -> None:
    await write_split(redis, "digits", Split(revision=1, champion="v2"))
    await asyncio.sleep(0.5)
    await write_split(redis, "digits", Split(revision=2, champion="v1"))
    await reach(engine, 3)
    await asyncio.sleep(0.2)
    tried = loads["v2"]
    await asyncio.sleep(0.5)
    assert loads["v2"] == tried
    await worker(redis)


async def test_whatever_goes_wrong_while_loading_is_said_once_and_refused(
    engine: Engine,
    redis: Redis,
    bundles: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(f"{bundles}/models/digits/v2", here / "models" / "digits" / "v2")
    tried: Counter[str] = Counter()

    def fail(model: str, version: str, settings: Settings) -> LoadedVersion:
        tried[version] += 1
        raise OSError("no space left on device")

    monkeypatch.setattr(follower_module, "LoadedVersion", fail)
    await write_split(redis, "digits", Split(revision=1, champion="v2"))
    told = await worker(redis, is_in_trouble=True)
    assert told.refused == "digits:v2 cannot be loaded: OSError: no space left on device"
    await asyncio.sleep(0.5)
    assert tried == {"v2": 1}
    assert caplog.text.count("no space left on device") == 1


async def test_a_worker_that_cannot_follow_still_tells(
    engine: Engine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise RuntimeError("nobody thought of this")

    follower = engine._runtimes["digits"].follower
    monkeypatch.setattr(follower, "_follow", fail)
    before = (await worker(redis)).at
    give_up = time.monotonic() + 60
    while (await worker(redis)).at < before + 0.5:
        assert time.monotonic() < give_up, "it went silent"
        await asyncio.sleep(0.05)
