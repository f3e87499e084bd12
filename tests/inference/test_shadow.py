"""The shadow: which requests, how far apart, and what gives way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rollout.config import Settings
from rollout.inference import shadow as shadow_module
from rollout.inference.engine import Engine
from rollout.inference.follower import Follower
from rollout.inference.rows import Rows
from rollout.inference.shadow import _picked
from rollout.inference.version import LoadedVersion
from rollout.keys import Keys
from rollout.review.queue import list_items
from rollout.routing.assignment import assign
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import Redis, connect
from tests.images import held_out


def rows(start: int, count: int) -> Rows:
    images = held_out().inputs["image"][np.arange(start, start + count) % 360]
    return Rows(
        [f"c-{start + n}" for n in range(count)],
        [f"k-{start + n}" for n in range(count)],
        {"image": images},
        [{"image": int(image.sum())} for image in images],
        time.monotonic() + 10,
    )


@pytest.fixture
async def engine(
    bundles: str, redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    async def tell_nobody(_: object) -> None:
        """Leaves what was counted to the tests."""

    monkeypatch.setattr(Follower, "_tell", tell_nobody)
    split = Split(champion="v1", challenger="v2", share=0.2, experiment="digits-v1-v2", shadow=0.3)
    await write_split(redis, "digits", split)
    loaded = await Engine.load(Settings(home=tmp_path), await connect(valkey_url))
    yield loaded
    await loaded.close()


def outcomes(engine: Engine) -> dict[str, int]:
    """Adds up what was counted, over the arms."""
    counts = engine.model("digits").snapshot.counts
    found: dict[str, int] = {}
    for arm in ("champion", "control"):
        for outcome, count in counts[arm].shadow.items():
            count.flush()
            found[outcome] = found.get(outcome, 0) + count.take()
    return found


async def quiet(engine: Engine) -> None:
    shadow = engine._runtimes["digits"].shadow
    for _ in range(400):
        await asyncio.sleep(0.02)
        if not shadow._queue and not shadow.is_running:
            break
    await asyncio.sleep(0.1)


async def test_the_share_is_kept_and_the_same_predictions_are_picked_again(engine: Engine, redis: Redis) -> None:
    model = engine.model("digits")
    outside = sum(assign(model.split, f"c-{n}").arm != "challenger" for n in range(1000))
    scored = []
    for _ in range(2):
        for start in range(0, 1000, 50):
            await engine.predict(model, rows(start, 50))
        await quiet(engine)
        found = outcomes(engine)
        assert found["failed"] == found["dropped"] == 0
        scored.append(found["agreed"] + found["disagreed"])
    assert scored[0] == scored[1]
    assert abs(scored[0] - 0.3 * outside) < 4 * (outside * 0.3 * 0.7) ** 0.5
    items = [item async for item, _ in list_items(redis, "digits", {}) if item.reason == "disagreement"]
    assert items
    for item in items:
        assert item.pi == 0.3
        assert item.other is not None
        assert item.other["label"] != item.answer["label"]
        assert item.revision == 1
        assert assign(model.split, item.client_id).arm == item.arm != "challenger"


async def test_disagreements_on_rows_that_are_in_review_anyway_are_evidence_as_well(
    engine: Engine, redis: Redis
) -> None:
    model = engine.model("digits")
    model.sampler.policy = msgspec.structs.replace(model.sampler.policy, audit=0.5)
    for start in range(0, 1000, 50):
        await engine.predict(model, rows(start, 50))
    await quiet(engine)
    counts: dict[str, int] = {}
    for arm in ("champion", "control"):
        for tally in model.snapshot.counts[arm].shadow.values():
            tally.flush()
        counts.update(
            {name: counts.get(name, 0) + count for (_, _, name), count in model.snapshot.counts[arm].take()}
        )
    keys = await redis.keys(Keys("digits").other("*"))
    ids = {key.decode().rpartition(":")[2] for key in keys if isinstance(key, bytes)}
    items = {item.id: item async for item, _ in list_items(redis, "digits", {})}
    disagreed = {item.id for item in items.values() if item.reason == "disagreement"}
    assert ids
    assert {items[one].reason for one in ids} <= {"low_confidence", "audit"}
    assert counts["evidence.1.disagreed"] == len(ids) + len(disagreed)
    assert counts["evidence.1.shadowed"] == counts["agreed"] + counts["disagreed"]
    kept = msgspec.json.decode(await redis.get(Keys("digits").other(next(iter(ids)))) or b"")
    assert (kept["version"], kept["pi"]) == ("v2", 0.3)


async def test_nothing_is_scored_while_rows_wait(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "LATEST_S", 0.5)
    model = engine.model("digits")
    monkeypatch.setattr(type(model.snapshot), "is_busy", property(lambda _: True))
    await engine.predict(model, rows(0, 64))
    await quiet(engine)
    found = outcomes(engine)
    assert found["dropped"] > 0
    assert found["agreed"] == found["disagreed"] == 0


async def test_a_full_queue_drops(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "MOST_ROWS", 5)
    await engine.predict(engine.model("digits"), rows(0, 200))
    await quiet(engine)
    found = outcomes(engine)
    assert found["agreed"] + found["disagreed"] == 5
    assert found["dropped"] > 5


async def test_one_row_that_fails_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    model = engine.model("digits")
    runtime = model.versions["v2"]._runtime
    run = runtime.run

    def spoil(inputs: Any) -> Any:
        scores = run(inputs)
        scores[0] = np.nan
        return scores

    monkeypatch.setattr(runtime, "run", spoil)
    everybody = [n for n in range(400) if assign(model.split, f"c-{n}").arm == "champion"]
    for n in everybody[:60]:
        await engine.predict(model, rows(n, 1))
    await quiet(engine)
    found = outcomes(engine)
    assert found["failed"] >= 1
    assert found["agreed"] + found["disagreed"] >= 1


@pytest.mark.parametrize("rate", [0.0, 0.0001, 0.0051, 0.00515, 0.0049999, 0.3, 0.57, 0.99999, 1.0])
def test_pi_is_the_share_of_positions_that_are_picked(rate: float) -> None:
    assert _picked(rate) == (np.arange(10_000) / 10_000 < rate).sum() / 10_000


def test_pi_is_the_rate_where_that_is_a_whole_number_of_positions() -> None:
    assert all(_picked(whole / 10_000) == whole / 10_000 for whole in range(10_001))


async def test_one_that_hangs_does_not_keep_the_next_from_being_scored(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shadow_module, "HANG_S", 0.3)
    gate = threading.Event()
    model = engine.model("digits")
    monkeypatch.setattr(model.versions["v2"].batcher, "run", lambda _: gate.wait(60))
    everybody = [n for n in range(400) if assign(model.split, f"c-{n}").arm == "champion"]

    async def ask() -> None:
        for n in everybody[:100]:
            await engine.predict(model, rows(n, 1))

    try:
        await ask()
        for _ in range(200):
            await asyncio.sleep(0.05)
            if "digits:v2 hangs" in caplog.text:
                break
        await ask()
        await asyncio.sleep(2 * shadow_module.GATHER_S)
        found = outcomes(engine)
        assert found["failed"] > 0
        assert found["dropped"] > 0, "it is not asked again"
        assert found["agreed"] == found["disagreed"] == 0
        assert caplog.text.count("digits:v2 hangs") == 1
        assert engine.is_stuck
        del model.versions["v2"]  # as after a rollback
        model.apply(model.split, [LoadedVersion("digits", "v2", Settings(home=tmp_path))])
        await ask()
        for _ in range(100):
            await asyncio.sleep(0.05)
            if (found := outcomes(engine))["agreed"] + found["disagreed"]:
                break
        else:
            raise AssertionError("nothing of the next was scored")
    finally:
        gate.set()
