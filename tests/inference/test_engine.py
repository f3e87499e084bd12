"""The engine: what it follows, what it refuses, and what a failing model costs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rollout.config import Settings
from rollout.errors import PredictionFailedError, UnknownModelError
from rollout.inference import engine as engine_module
from rollout.inference.engine import Engine
from rollout.inference.row import ClassAnswer, ClassPrediction, Decision, Row
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import Redis, connect
from tests.images import held_out

TRIAL = Split(champion="v1", challenger="v2", share=0.5, experiment="digits-v1-v2")


def make_row(number: int = 0, client_id: str = "c-1") -> Row:
    image = held_out().inputs["image"][number]
    sent = {"image": msgspec.Raw(msgspec.json.encode(image.tolist()))}
    return Row(client_id, None, {"image": image}, sent, time.monotonic() + 10)


@pytest.fixture
async def engine(
    bundles: str, redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    monkeypatch.setattr(engine_module, "FOLLOW_EVERY_S", 0.05)
    await write_split(redis, "digits", TRIAL)
    loaded = await Engine.load(Settings(home=tmp_path), await connect(valkey_url))
    yield loaded
    await loaded.close()


async def wait_for_revision(engine: Engine, revision: int) -> None:
    for _ in range(200):
        if engine.models["digits"].split.revision == revision:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(engine.models["digits"].split)


async def test_rows_of_one_request_go_to_different_arms_in_their_order(engine: Engine) -> None:
    model = engine.model("digits")
    rows = [make_row(number, f"c-{number}") for number in range(40)]
    predictions = await engine.predict(model, rows)
    assert [one.client_id for one in predictions] == [row.client_id for row in rows]
    assert {one.version for one in predictions} == {"v1", "v2"}
    alone = [(await engine.predict(model, [make_row(number, f"c-{number}")]))[0] for number in range(40)]
    for one, other in zip(predictions, alone, strict=True):
        assert isinstance(one, ClassPrediction)
        assert isinstance(other, ClassPrediction)
        assert (one.version, one.arm, one.label) == (other.version, other.arm, other.label)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


async def test_a_split_that_cannot_be_served_changes_nothing(
    engine: Engine, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    bad = await write_split(redis, "digits", Split(revision=1, champion="v9"))
    with caplog.at_level(logging.INFO, "rollout"):
        await asyncio.sleep(0.4)
        assert engine.models["digits"].split.revision == 1
        assert caplog.text.count("digits stays at revision 1: there is no bundle digits:v9") == 1, "said once"
        await write_split(redis, "digits", msgspec.structs.replace(bad, champion="v2"))
        await wait_for_revision(engine, 3)
    assert (await engine.predict(engine.model("digits"), [make_row()]))[0].version == "v2"


async def test_without_redis_the_last_split_holds(engine: Engine, redis: Redis) -> None:
    gone = Redis.from_url("unix:///nowhere/valkey.sock")
    connected, engine.redis = engine.redis, gone
    await write_split(redis, "digits", Split(revision=1, champion="v2"))
    await asyncio.sleep(0.3)
    assert engine.models["digits"].split.revision == 1
    engine.redis = connected
    await wait_for_revision(engine, 2)
    await gone.aclose()


async def test_scores_that_are_no_numbers_fail_their_row_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = engine.model("digits").versions["v1"]
    run = version._runtime.run

    def spoil(inputs: dict[str, np.ndarray]) -> np.ndarray:
        scores = run(inputs)
        scores[inputs["image"].max((1, 2)) == 0] = np.nan
        return scores

    monkeypatch.setattr(version._runtime, "run", spoil)
    good, black = make_row(), make_row()
    black.arrays = {"image": np.zeros((32, 32), np.uint8)}
    outcomes = await asyncio.gather(version.batcher.submit([good]), version.batcher.submit([black]))
    ((scored,), (failed,)) = outcomes
    assert isinstance(scored, Decision)
    assert isinstance(scored.answer, ClassAnswer)
    assert scored.answer.label
    assert isinstance(failed, PredictionFailedError)
    assert "not finite" in failed.detail


async def test_a_request_with_a_failing_row_fails_whole_and_names_it(engine: Engine) -> None:
    wrong = make_row(client_id="c-2")
    wrong.arrays = {"image": np.zeros((3, 3), np.uint8)}
    with pytest.raises(PredictionFailedError, match="instance 1: the model failed on this input"):
        await engine.predict(engine.model("digits"), [make_row(), wrong, make_row()])


async def test_unknown_models_are_named(engine: Engine) -> None:
    with pytest.raises(UnknownModelError, match="there is no model 'cats'; this service has digits"):
        engine.model("cats")
