"""What answers under a revision: labels, bundles, and versions that come and go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from rollout.config import Settings
from rollout.errors import StoreUnavailableError
from rollout.inference import follower as follower_module
from rollout.inference import served_model
from rollout.inference.engine import Engine
from rollout.inference.rows import Rows
from rollout.inference.served_splits import read_served
from rollout.inference.version import LoadedVersion
from rollout.routing.assignment import assign
from rollout.routing.changes import promote
from rollout.routing.control import carry_out, propose, propose_rollback
from rollout.routing.split import Split
from rollout.routing.split_cache import cache_split, cached_splits
from rollout.routing.splits import write_split
from rollout.routing.traffic import read_traffic, read_workers
from rollout.store import Redis, client_of, connect
from tests.images import held_out

TRIAL = Split(champion="v1", challenger="v2", share=0.5, experiment="digits-v1-v2")


def one_row(client_id: str) -> Rows:
    image = held_out().inputs["image"][:1]
    return Rows([client_id], [None], {"image": image}, [{"image": image[0].tolist()}], time.monotonic() + 10)


@pytest.fixture
async def engine(
    bundles: str, redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    monkeypatch.setattr(follower_module, "FOLLOW_EVERY_S", 0.05)
    proposal = await propose(redis, "digits", lambda _: TRIAL)
    await carry_out(redis, proposal, "ada", "a trial")
    loaded = await Engine.load(Settings(home=tmp_path), await connect(valkey_url))
    yield loaded
    await loaded.close()


async def until(is_so: Callable[[], bool], otherwise: str) -> None:
    give_up = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < give_up, otherwise
        await asyncio.sleep(0.01)


async def followed(engine: Engine, revision: int) -> None:
    model = engine.model("digits")
    await until(lambda: model.split.revision == revision, f"it does not get to revision {revision}")


async def test_a_promotion_and_the_way_back_load_nothing(
    engine: Engine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> LoadedVersion:
        raise AssertionError("something is loaded")

    monkeypatch.setattr(follower_module, "LoadedVersion", never)
    model = engine.model("digits")
    await carry_out(redis, await propose(redis, "digits", lambda now: promote(now or TRIAL)), "ada", "better")
    await followed(engine, 2)
    assert (model.champion.version, model.snapshot.challenger, set(model.versions)) == ("v2", None, {"v1", "v2"})
    await carry_out(redis, await propose_rollback(redis, "digits"), "ada", "worse after all")
    await followed(engine, 3)
    assert model.champion.version == "v1"


async def test_a_rollback_does_not_wait_for_what_is_being_loaded(
    engine: Engine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that takes long to load is on its way when the kill switch is pressed."""
    done = threading.Event()

    def slowly(*arguments: object) -> LoadedVersion:
        assert done.wait(60)
        return LoadedVersion(*arguments)  # type: ignore[arg-type]

    model = engine.model("digits")
    await carry_out(redis, await propose_rollback(redis, "digits"), "ada", "bad")
    await followed(engine, 2)
    del model.versions["v2"]
    monkeypatch.setattr(follower_module, "LoadedVersion", slowly)
    again = await propose(redis, "digits", lambda _: TRIAL, release=True)
    await carry_out(redis, again, "ada", "once more")
    await asyncio.sleep(0.5)
    assert model.split.revision == 2, "it is still being loaded"
    await carry_out(redis, await propose_rollback(redis, "digits"), "ada", "no, stop")
    await followed(engine, 4)
    loading = engine._runtimes["digits"].follower._loading
    assert loading, "it is still being loaded, for nobody"
    done.set()
    await until(lambda: not loading, "nobody let go of it")


async def test_what_was_counted_before_a_switch_is_told(engine: Engine, redis: Redis) -> None:
    """Requests are answered and the split changes before anything is written down."""
    await followed(engine, 1)
    for number in range(40):
        await engine.predict(engine.model("digits"), one_row(f"c-{number}"))
    await carry_out(redis, await propose_rollback(redis, "digits"), "ada", "bad")
    await followed(engine, 2)
    for number in range(40):
        await engine.predict(engine.model("digits"), one_row(f"c-{number}"))
    for _ in range(1000):
        await asyncio.sleep(0.05)
        arms = await read_traffic(redis, "digits")
        if sum(arm.predictions for arm in arms) >= 80:
            break
    assert sum(arm.predictions for arm in arms) == 80
    challengers = sum(assign(TRIAL, f"c-{number}").arm == "challenger" for number in range(40))
    assert {(arm.arm, arm.version): arm.predictions for arm in arms}["challenger", "v2"] == challengers
    (worker,) = await read_workers(redis, "digits")
    assert (worker.revision, worker.breaker, worker.refused) == (2, "closed", "")


async def test_another_bundle_of_the_same_version_is_refused(
    engine: Engine, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    split = engine.model("digits").split
    forged = msgspec.structs.replace(split, digests={**split.digests, "v2": "0" * 64})
    await write_split(redis, "digits", forged)
    await until(lambda: "is not the bundle that the split names" in caplog.text, "it is not refused")
    assert "digits stays at revision 1: digits:v2 on this machine is not the bundle" in caplog.text
    assert engine.model("digits").split.revision == 1


async def test_versions_that_nobody_names_leave_the_memory(
    engine: Engine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_model, "RETIRE_AFTER_S", 0.3)
    await carry_out(redis, await propose_rollback(redis, "digits"), "ada", "bad")
    await followed(engine, 2)
    assert set(engine.model("digits").versions) == {"v1", "v2"}
    await until(lambda: set(engine.model("digits").versions) == {"v1"}, "v2 is still there")


async def test_a_version_that_hangs_is_loaded_anew_when_it_comes_back(
    engine: Engine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = engine.model("digits")
    hanging = model.versions["v2"]
    monkeypatch.setattr(hanging.batcher, "hangs", lambda: True)
    await carry_out(redis, await propose_rollback(redis, "digits"), "ada", "it hangs")
    await followed(engine, 2)
    await until(lambda: set(model.versions) == {"v1"}, "v2 is still there")
    assert engine.is_stuck
    again = await propose(redis, "digits", lambda _: TRIAL, release=True)
    await carry_out(redis, again, "ada", "mended")
    await followed(engine, 3)
    assert model.versions["v2"] is not hanging


async def test_without_redis_the_splits_on_disk_hold(bundles: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    gone = client_of("unix:///nowhere/valkey.sock")
    with pytest.raises(StoreUnavailableError):
        await read_served(gone, settings)
    cache_split(tmp_path, "digits", TRIAL)
    (tmp_path / "splits" / "languages.json").write_text('{"champion":')
    assert cached_splits(tmp_path) == {"digits": TRIAL}
    assert await read_served(gone, settings) == {"digits": TRIAL}
    loaded = await Engine.load(settings, gone)
    assert loaded.model("digits").split == TRIAL
    await loaded.close()
