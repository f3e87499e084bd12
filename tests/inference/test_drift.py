"""Drift in a worker: rows are counted and flushed once, one worker looks, reviewed rows say what is to be expected."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from rollout import metrics
from rollout.bundle.baseline import measure_baseline
from rollout.bundle.numbers import Number
from rollout.bundle.schema import InputSchema
from rollout.errors import FieldError, StoreUnavailableError, invalid
from rollout.heads import Classification
from rollout.heads.truth import Truth
from rollout.inference import drift_watch, live_sketches, reviewed_rows
from rollout.inference.drift_watch import DriftWatch
from rollout.inference.live_sketches import LiveSketches
from rollout.inference.refusals import Refusals
from rollout.inference.reviewed_rows import CONFIDENCE, ReviewedRows
from rollout.inference.row_sample import RowSample
from rollout.inference.served_model import ServedModel
from rollout.judge.baseline import Baseline
from rollout.judge.drift import judge_drift
from rollout.routing.drift import read_drift
from rollout.routing.drift_windows import Flush, Windows, add_sums, places_of
from rollout.store import Redis, client_of
from tests.review.decisions import decide, fill
from tests.review.items import make_item, written

DIGEST = "d" * 64
FIELDS = {"age": Number(minimum=0, maximum=150)}
HEAD = Classification(labels=["no", "yes"], review_threshold=0.6)
PACKED = "2026-11-01T00:00:00Z"


def answered(rows: int, age: float = 40.0, seed: int = 0) -> tuple[dict[str, Any], Any]:
    random = np.random.default_rng(seed)
    yes = random.uniform(0, 1, rows)
    ages = {"age": random.normal(age, 5, rows).astype(np.float32)}
    return ages, HEAD.numbers(np.stack([1 - yes, yes], axis=1).astype(np.float32))


def make_baseline(rows: int = 500) -> Baseline:
    arrays, numbers = answered(rows, seed=7)
    return measure_baseline(FIELDS, HEAD, arrays, numbers, np.zeros(rows))


def model_of(baseline: Baseline | None = None) -> Any:
    """Returns what the drift of a worker asks of a model: one version, which is champion."""
    manifest = SimpleNamespace(task=HEAD, created_at=PACKED, tag="people:v1")
    loaded = SimpleNamespace(
        baseline=baseline, digest=DIGEST, manifest=manifest, schema=InputSchema(FIELDS), version="v1"
    )
    counts = SimpleNamespace(arm="champion", loaded=loaded, sample=RowSample())
    snapshot = SimpleNamespace(counts={"champion": counts})
    return SimpleNamespace(
        name="digits",
        snapshot=snapshot,
        snapshots=[snapshot],
        champion=loaded,
        versions={"v1": loaded},
        schema=loaded.schema,
        refused=Refusals(),
    )


def offer(model: Any, rows: int, age: float = 40.0, seed: int = 0, client: str = "") -> None:
    arrays, numbers = answered(rows, age, seed)
    clients = [client or f"c-{seed}-{row}" for row in range(rows)]
    model.snapshot.counts["champion"].sample.offer(arrays, numbers, clients, range(rows))


async def counted(redis: Redis, baseline: Baseline) -> float:
    """Returns how many rows are in Redis, by their ages."""
    windows = await Windows(redis, "digits", DIGEST, "champion", baseline.size).read(4e9)
    assert not windows, "nothing is in the future"
    windows = await Windows(redis, "digits", DIGEST, "champion", baseline.size).read(time.time())
    return float(sum(window.vector[baseline.slices["age"]].sum() for window in windows))


async def test_rows_of_two_workers_add_up(redis: Redis) -> None:
    baseline = make_baseline()
    for rows in (30, 50):
        model = model_of(baseline)
        sketches = LiveSketches(model, redis)
        offer(model, rows)
        await sketches.sketch()
        await sketches.flush()
        await sketches.flush()
        offer(model, 7)
        await sketches.close()
    assert await counted(redis, baseline) == 94


async def test_what_redis_does_not_take_waits_and_is_added_once(redis: Redis, monkeypatch: Any) -> None:
    baseline = make_baseline()
    model = model_of(baseline)
    away = client_of("redis://127.0.0.1:1")
    sketches = LiveSketches(model, away)
    for _ in range(3):
        offer(model, 10)
        await sketches.sketch()
        with pytest.raises(StoreUnavailableError):
            await sketches.flush()
    await away.aclose()
    sketches._redis = redis

    async def lose_the_answer(*arguments: Any) -> None:
        await add_sums(*arguments)
        raise StoreUnavailableError("its answer is lost")

    monkeypatch.setattr(live_sketches, "add_sums", lose_the_answer)
    with pytest.raises(StoreUnavailableError):
        await sketches.flush()
    monkeypatch.undo()
    await sketches.flush()
    assert await counted(redis, baseline) == 30


async def test_what_waits_is_bounded(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_sketches, "MOST_WAITING", 10)
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    model = model_of(make_baseline())
    sketches = LiveSketches(model, redis)
    for _ in range(30):
        offer(model, 2)
        await sketches.sketch()
        now += 60
    kept = {place.resolution.name for place in sketches._waiting}
    assert len(sketches._waiting) == 10
    assert kept >= {"hour", "day"}, "those that say most of the past"


async def test_what_waited_is_added_in_parts(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline, now, sizes = make_baseline(), time.time(), list[int]()
    sketches = LiveSketches(model_of(baseline), redis)
    sums = np.ones(baseline.size)
    for minute in range(100):
        sketches._add(places_of(DIGEST, "champion", now - 60 * minute), sums)

    async def add(redis: Redis, model: str, flush: Flush) -> None:
        sizes.append(len(flush.sums))
        await add_sums(redis, model, flush)

    monkeypatch.setattr(live_sketches, "add_sums", add)
    await sketches.flush()
    assert not sketches._waiting
    assert sum(sizes) > 100
    assert max(sizes) == live_sketches.AT_ONCE
    assert await counted(redis, baseline) > 0


async def test_requests_that_are_refused_are_counted_as_thinly_as_rows(redis: Redis) -> None:
    baseline = make_baseline()
    model = model_of(baseline)
    model.snapshot.counts["champion"].sample = RowSample(10)
    offer(model, 1000)
    for number in range(100_000):
        model.refused.add(f"r-{number}", ["age"])
    sketches = LiveSketches(model, redis)
    await sketches.sketch()
    await sketches.flush()
    assert await counted(redis, baseline) == pytest.approx(10 + 1000, rel=0.2)
    assert model.refused.thinned(1.0) == []


@pytest.mark.parametrize("client", ["loud", ""])
@pytest.mark.parametrize("is_refused", [True, False])
async def test_one_client_alone_raises_no_alarm(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, client: str, *, is_refused: bool
) -> None:
    baseline, now = make_baseline(), time.time() // 60 * 60 - 300
    monkeypatch.setattr(live_sketches, "time", SimpleNamespace(time=lambda: now, monotonic=time.monotonic))
    model = model_of(baseline)
    sketches = LiveSketches(model, redis)
    for second in range(90):
        offer(model, 3, seed=second)
        if second >= 60 and is_refused:
            for _ in range(120):
                model.refused.add(client, ["age"])
        elif second >= 60:
            offer(model, 120, age=120.0, seed=second, client=client or " ")
        await sketches.sketch()
        now += 1
        if second in (61, 70, 89):
            await sketches.flush()
            windows = await Windows(redis, "digits", DIGEST, "champion", baseline.size).read(now)
            found = judge_drift(baseline, windows, packed_at=now - 7 * 86_400)
            assert found.state == "quiet", found.detail
    assert found.rows >= 270


def test_an_input_is_named_by_what_a_request_is_refused_for() -> None:
    model = SimpleNamespace(name="people", schema=InputSchema(FIELDS), refused=Refusals())
    before = metrics.REFUSED_INPUTS.labels("people", "age")._value.get()
    pointers = (
        "/inputs/age",
        "/instances/3/inputs/age/0",
        "/instances/4/inputs/other",
        "/client_id",
        "/inputs/0/data",
    )
    error = invalid([FieldError(pointer, "does not fit") for pointer in pointers], "acme")
    ServedModel.note_refused(model, error)  # type: ignore[arg-type]
    ServedModel.note_refused(model, StoreUnavailableError("away"))  # type: ignore[arg-type]
    assert model.refused.thinned(1.0) == [("acme", ["age"])], "once for a request, and for what is an input"
    assert metrics.REFUSED_INPUTS.labels("people", "age")._value.get() == before + 1


async def look_after(redis: Redis, model: Any, rows: int, age: float = 40.0) -> DriftWatch:
    sketches = LiveSketches(model, redis)
    for start in range(0, rows, 200):
        offer(model, min(200, rows - start), age, seed=start)
        await sketches.sketch()
    await sketches.flush()
    watch = DriftWatch(redis, model)
    await watch._step()
    return watch


def moved(feature: str) -> float:
    return float(metrics.DRIFT_MOVED.labels("digits", "champion", feature)._value.get())


async def test_one_worker_looks_and_shows_it(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    model = model_of(make_baseline())
    first = await look_after(redis, model, 400)
    assert (await read_drift(redis, "digits")).state == "quiet"
    assert moved("age") == 0
    second = await look_after(redis, model, 400, age=80.0)
    assert (await read_drift(redis, "digits")).state == "quiet", "somebody else has the lease"
    first._due = 0.0
    await first._step()
    found = await read_drift(redis, "digits")
    assert (found.state, found.arms[0].found.rows) == ("drifted", 800)
    assert moved("age") == 1
    assert "drift of digits: age moved" in caplog.text
    caplog.clear()
    await first.look()
    assert "drift of digits" not in caplog.text, "it is said once"
    await first._lease.release()
    await second._step()
    assert not first._shown or moved("age") == 1
    await first._step()
    assert moved("age") == 0, "who does not look shows nothing"
    assert first._shown == set()


async def test_a_version_without_a_baseline_is_named(redis: Redis) -> None:
    await look_after(redis, model_of(None), 10)
    found = await read_drift(redis, "digits")
    assert (found.state, found.arms) == ("too_few", [])
    assert found.notes == ["people:v1 was packed without a baseline: pack it anew to see drift of its rows"]


async def test_a_look_that_takes_long_is_not_soon_repeated(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = drift_watch._judge
    monkeypatch.setattr(drift_watch, "_judge", lambda *arguments: (judge(*arguments)[0], 0.5))
    watch = await look_after(redis, model_of(make_baseline()), 10)
    left = watch._due - time.monotonic()
    assert 40 < left <= 0.5 / drift_watch.PART


async def test_reviewed_rows_say_what_is_to_be_expected(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(make_baseline())
    items = [
        make_item(
            number,
            label="yes",
            confidence=0.514,
            scores={"no": 0.486, "yes": 0.514},
            pi=0.5,
            arm="champion",
            task=written(HEAD),
            inputs=msgspec.Raw(b'{"age":%d}' % (80 + number % 3)),
        )
        for number in range(40)
    ]
    await fill(redis, items)
    right = {item.id: Truth(label="yes" if number % 4 else "no") for number, item in enumerate(items)}
    await decide(redis, right)
    reviewed = ReviewedRows(redis, model)
    await reviewed.follow()
    seen = reviewed.of(model.champion, "age")
    assert {one.value for one in seen} == {80, 81, 82}
    assert {one.weight for one in seen} == {2}
    assert sum(one.right for one in seen) == 30
    assert {one.value for one in reviewed.of(model.champion, CONFIDENCE)} == {51}
    assert reviewed.of(model.champion, "answer.label") == []
    monkeypatch.setattr(reviewed_rows, "MOST_ROWS", 12)
    latest = ReviewedRows(redis, model)
    await latest.follow()
    assert len(latest.of(model.champion, "age")) == 12, "there may be a million"
    monkeypatch.undo()
    await look_after(redis, model, 400, age=80.0)
    (arm,) = (await read_drift(redis, "digits")).arms
    by_age, by_confidence = arm.predicted
    assert (by_age.feature, by_confidence.feature) == ("age", CONFIDENCE)
    assert by_age.reviewed == 40
    assert 0.5 < by_age.estimate < 0.95
