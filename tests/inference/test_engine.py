"""The engine: what it follows, what it refuses, and what a failing model costs."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from rollout import metrics
from rollout.bundle.schema import Arrays
from rollout.config import Settings
from rollout.errors import DeadlineExceededError, OverloadedError, PredictionFailedError, UnknownModelError
from rollout.inference import follower as follower_module
from rollout.inference.batcher import Ran
from rollout.inference.engine import Engine
from rollout.inference.follower import Follower
from rollout.inference.rows import Answers, Rows
from rollout.routing.assignment import Arm, assign
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import Redis, client_of, connect
from tests.images import held_out
from tests.inference.black import spoil_black

BLACK = np.zeros((1, 32, 32), np.uint8)
TRIAL = Split(champion="v1", challenger="v2", share=0.5, experiment="digits-v1-v2")


def make_rows(images: NDArray[np.uint8], *client_ids: str) -> Rows:
    return Rows(
        client_ids,
        [None] * len(client_ids),
        {"image": images},
        [{"image": image.tolist()} for image in images],
        time.monotonic() + 10,
    )


def held_out_rows(*client_ids: str, start: int = 0) -> Rows:
    return make_rows(held_out().inputs["image"][start : start + len(client_ids)], *client_ids)


async def predict(engine: Engine, rows: Rows) -> Answers:
    return await engine.predict(engine.model("digits"), rows)


@pytest.fixture
async def engine(
    bundles: str, redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    monkeypatch.setattr(follower_module, "FOLLOW_EVERY_S", 0.05)
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
    client_ids = [f"c-{number}" for number in range(40)]
    together = await predict(engine, held_out_rows(*client_ids))
    assert {assignment.version for assignment in together.assignments} == {"v1", "v2"}
    for number, client_id in enumerate(client_ids):
        alone = await predict(engine, held_out_rows(client_id, start=number))
        assert alone.assignments == [together.assignments[number]]
        one, among = alone.decisions.row(0), together.decisions.row(number)
        assert one.numbers == pytest.approx(among.numbers, abs=1e-5)


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
    assert (await predict(engine, held_out_rows("c-1"))).assignments[0].version == "v2"


async def test_without_redis_the_last_split_holds(engine: Engine, redis: Redis) -> None:
    gone = client_of("unix:///nowhere/valkey.sock")
    follower = engine._runtimes["digits"].follower
    connected, follower.redis = follower.redis, gone
    await write_split(redis, "digits", Split(revision=1, champion="v2"))
    await asyncio.sleep(0.3)
    assert engine.models["digits"].split.revision == 1
    follower.redis = connected
    await wait_for_revision(engine, 2)
    await gone.aclose()


@pytest.fixture
def black_is_no_number(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The champion gives NaN for a black image."""
    spoil_black(engine.model("digits").versions["v1"], monkeypatch)


@pytest.mark.usefixtures("black_is_no_number")
async def test_scores_that_are_no_numbers_fail_their_row_alone(engine: Engine) -> None:
    batcher = engine.model("digits").champion.batcher
    good, black = held_out_rows("c-1"), make_rows(BLACK, "c-1")
    futures = [batcher.submit(rows.arrays, rows.deadline) for rows in (good, black)]
    scored, black_one = [done.decisions for done in await asyncio.gather(*futures)]
    assert (len(scored), scored.errors) == (1, {})
    failed = black_one.errors[0]
    assert isinstance(failed, PredictionFailedError)
    assert "not finite" in failed.detail


@pytest.mark.usefixtures("black_is_no_number")
async def test_a_request_with_a_failing_row_fails_whole_and_names_it(engine: Engine) -> None:
    first, last = held_out().inputs["image"][:2]
    champions = [f"c-{number}" for number in range(20) if assign(TRIAL, f"c-{number}").version == "v1"]
    with pytest.raises(PredictionFailedError, match="instance 1: the model's scores for this input are not"):
        await predict(engine, make_rows(np.stack([first, BLACK[0], last]), *champions[:3]))
    with pytest.raises(PredictionFailedError, match=r"^the model's scores"):
        await predict(engine, make_rows(BLACK, champions[0]))


async def test_unknown_models_are_named(engine: Engine) -> None:
    with pytest.raises(UnknownModelError, match="there is no model 'cats'; this service has digits"):
        engine.model("cats")


def counted(engine: Engine, arm: Arm) -> dict[str, int]:
    metrics.flush_tallies()
    return {name: count for (_, _, name), count in engine.model("digits").snapshot.counts[arm].take()}


@pytest.fixture
def clients(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Clients by arm; what is counted is left to the tests."""

    async def tell_nobody(_: object) -> None:
        pass

    monkeypatch.setattr(Follower, "_tell", tell_nobody)
    found: dict[str, list[str]] = {}
    for number in range(40):
        found.setdefault(assign(TRIAL, f"c-{number}").arm, []).append(f"c-{number}")
    return found


def shed(*_: object, **__: object) -> None:
    raise OverloadedError("too much")


async def test_what_is_shed_is_a_failure_of_its_arm_and_evidence_of_nothing(
    engine: Engine, clients: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = engine.model("digits")
    await predict(engine, held_out_rows(clients["control"][0]))
    monkeypatch.setattr(model.versions["v2"].batcher, "submit", shed)
    await predict(engine, held_out_rows(*clients["challenger"][:5]))
    monkeypatch.setattr(model.versions["v1"].batcher, "submit", shed)
    with pytest.raises(OverloadedError):
        await predict(engine, held_out_rows(*clients["control"][:3]))
    with pytest.raises(OverloadedError):
        await predict(engine, held_out_rows(*clients["challenger"][:2]))
    control, challenger = counted(engine, "control"), counted(engine, "challenger")
    assert (control["failures"], challenger["failures"]) == (3, 5 + 2)
    assert challenger["fallbacks.timeout"] == challenger["evidence.1.late"] == 5
    for part in ("n", "y"):
        grouped = [
            count for name, count in challenger.items() if re.fullmatch(rf".*\.fallbacks\|\d+\|{part}", name)
        ]
        assert sum(grouped) == 5
    assert (control["evidence.1.requests"], "evidence.1.failures" in control) == (1, False)
    assert "evidence.1.requests" not in challenger


async def test_rows_that_were_late_prove_nothing_of_control_beside_rows_of_others(
    engine: Engine, clients: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = engine.model("digits").champion.batcher
    submit = batcher.submit

    def late(arrays: Arrays, deadline: float, **_: object) -> asyncio.Future[Ran]:
        return submit(arrays, deadline - 100)

    monkeypatch.setattr(batcher, "submit", late)
    with pytest.raises(DeadlineExceededError):
        await predict(engine, held_out_rows(clients["control"][0], clients["challenger"][0]))
    assert "evidence.1.requests" not in counted(engine, "control")
    assert counted(engine, "challenger")["evidence.1.requests"] == 1


async def test_a_request_is_one_failure_however_many_rows_it_has(
    engine: Engine, clients: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = engine.model("digits")
    await predict(engine, held_out_rows(*clients["challenger"][:5]))
    monkeypatch.setattr(model.versions["v2"], "_runtime", None)  # each row fails alone
    await predict(engine, held_out_rows(*clients["challenger"][:5]))
    challenger = counted(engine, "challenger")
    assert challenger["failures"] == challenger["fallbacks.error"] == 5
    assert (challenger["evidence.1.requests"], challenger["evidence.1.failures"]) == (2, 1)


@pytest.mark.usefixtures("black_is_no_number")
async def test_what_control_fails_in_is_counted_alike(engine: Engine, clients: dict[str, list[str]]) -> None:
    await predict(engine, held_out_rows(*clients["control"][:2]))
    black = np.repeat(BLACK, 3, axis=0)
    with pytest.raises(PredictionFailedError):
        await predict(engine, make_rows(black, *clients["control"][:3]))
    control = counted(engine, "control")
    assert control["failures"] == 3
    assert (control["evidence.1.requests"], control["evidence.1.failures"]) == (2, 1)
