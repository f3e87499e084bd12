"""Outcomes and predictions: either order joins once, the first report counts, and nothing is kept for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from loadtests.fleet import Valkey
from rollout.errors import StoreUnavailableError
from rollout.keys import Keys
from rollout.metrics import OUTCOMES, TRIAL_PREDICTIONS
from rollout.review import predictions as predictions_module
from rollout.review.item import item_id, milliseconds
from rollout.review.outcomes import Outcome, read_outcomes, read_outcomes_since, record_outcomes
from rollout.review.predictions import PendingOutcome, Predicted, Predictions, record_predictions
from rollout.review.queue import add_items
from rollout.review.sampling import Sampler
from rollout.store import Redis, connect
from tests.review.items import make_item

DAY_S = 24 * 3600
NAMES = Keys("digits")


def waiting(number: int = 1, **changes: Any) -> PendingOutcome:
    """Returns a prediction in the trial."""
    fields: dict[str, Any] = {
        "at": "2026-11-22T10:00:00.000Z",
        "arm": "challenger",
        "version": "v2",
        "variant": "onnx",
        "revision": 7,
        "answer": {"label": "3", "confidence": 0.9},
    }
    return PendingOutcome(f"client-{number}", f"key-{number}", Predicted(**(fields | changes)))


def report(number: int = 1, label: str | None = "3", **changes: Any) -> Outcome:
    fields: dict[str, Any] = {
        "client_id": f"client-{number}",
        "key": f"key-{number}",
        "at": "2026-11-22T11:00:00.000Z",
    }
    return Outcome(**(fields | {"label": label} | changes))


async def predict(redis: Redis, *predictions: PendingOutcome, keep_s: int = 7 * DAY_S) -> None:
    await record_predictions(redis, "digits", predictions, keep_s)


async def tell(redis: Redis, *outcomes: Outcome, keep_s: int = 30 * DAY_S) -> list[tuple[str, Outcome]]:
    recorded = await record_outcomes(redis, "digits", outcomes, keep_s)
    return [(one.fate, one.outcome) for one in recorded]


async def everything(redis: Redis, since: int = 0) -> list[Outcome]:
    return [outcome async for outcome in read_outcomes_since(redis, "digits", since)]


async def test_a_late_outcome_is_joined_at_once(redis: Redis) -> None:
    await predict(redis, waiting(fallback="timeout", pinned=True))
    ((fate, outcome),) = await tell(redis, report(label="8"))
    assert (fate, outcome.label, outcome.predicted) == (
        "new",
        "8",
        waiting(fallback="timeout", pinned=True).predicted,
    )
    (read,) = await everything(redis)
    assert (read.label, read.predicted, read.id) == ("8", outcome.predicted, item_id("client-1", "key-1", b""))


async def test_an_early_outcome_is_joined_when_its_prediction_is_written(redis: Redis) -> None:
    ((fate, outcome),) = await tell(redis, report())
    assert (fate, outcome.predicted) == ("new", None)
    (early,) = await everything(redis)
    assert early.predicted is None
    await predict(redis, waiting())
    (joined,) = await everything(redis, early.cursor)
    assert joined.cursor > early.cursor
    assert joined.predicted == waiting().predicted
    assert await everything(redis) == [joined], "it is there once"


@pytest.mark.parametrize("early", [True, False])
async def test_the_first_prediction_counts_and_joins_once(redis: Redis, early: bool) -> None:
    if early:
        await tell(redis, report())
    await predict(redis, waiting())
    if not early:
        await predict(redis, waiting(version="v9", answer={"label": "1", "confidence": 0.9}))
        await tell(redis, report())
    (joined,) = await everything(redis)
    await predict(redis, waiting(version="v9", answer={"label": "1", "confidence": 0.9}), waiting())
    assert await everything(redis) == [joined]
    assert joined.predicted == waiting().predicted


async def test_of_predictions_that_are_written_together_each_is_looked_at_alone(redis: Redis) -> None:
    await tell(redis, report(3))
    await redis.set(f"{NAMES.client('client-2')}:forgotten", milliseconds("2026-11-22T10:00:00.001Z"))
    await redis.set(f"{NAMES.client('client-4')}:forgotten", milliseconds("2026-11-22T09:59:59.999Z"))
    await predict(redis, *(waiting(number) for number in range(1, 6)))
    assert {outcome.client_id for outcome in await everything(redis)} == {"client-3"}
    ids = [item_id(f"client-{number}", f"key-{number}", b"") for number in range(1, 6)]
    kept = await redis.mget([NAMES.prediction(one) for one in ids])
    assert [one is not None for one in kept] == [True, False, True, True, True]


async def test_the_first_outcome_counts(redis: Redis) -> None:
    first, again, other = report(), report(at="2026-11-23T11:00:00.000Z"), report(label="8")
    assert [fate for fate, _ in await tell(redis, first, again, other, report(2))] == [
        "new",
        "repeated",
        "contradicted",
        "new",
    ]
    (fate, kept) = (await tell(redis, other))[0]
    assert (fate, kept.label, kept.at) == ("contradicted", "3", first.at)
    assert [outcome.label for outcome in await everything(redis)] == ["3", "3"]
    (number,) = await tell(redis, report(3, label=None, value=2.5))
    assert (await tell(redis, report(3, label=None, value=2.5)))[0] == ("repeated", number[1])
    assert (await tell(redis, report(3, label=None, value=2.0)))[0][0] == "contradicted"


async def test_reports_at_the_same_time_agree_on_who_was_first(redis: Redis) -> None:
    told = await asyncio.gather(*(tell(redis, report(label=str(digit))) for digit in range(10)))
    fates = [fate for ((fate, _),) in told]
    assert (fates.count("new"), fates.count("contradicted")) == (1, 9)
    assert len({outcome.label for ((_, outcome),) in told}) == 1


@pytest.mark.parametrize("early", [True, False])
async def test_outside_the_trial_an_outcome_is_joined_with_the_review_item(redis: Redis, early: bool) -> None:
    item = make_item(1, arm="champion", reason="audit", pi=0.005)
    link = make_item(1, id=item_id("client-1", "key-9", b""), key="key-9", arm="champion", pi=0.25)
    reports = report(), report(key="key-9")
    if early:
        assert [outcome.predicted for _, outcome in await tell(redis, *reports)] == [None, None]
    await add_items(redis, [item, link], 9)
    if not early:
        await tell(redis, *reports)
    first, second = await everything(redis)
    assert first.predicted is not None
    assert (first.predicted.pi, first.predicted.reason, first.predicted.answer["label"]) == (0.005, "audit", "3")
    assert second.predicted is not None
    assert (second.key, second.predicted.pi, second.predicted.version) == ("key-9", 0.25, "v1")


@pytest.mark.parametrize("early", [True, False])
async def test_in_the_trial_an_outcome_waits_for_the_prediction_itself(redis: Redis, early: bool) -> None:
    item = make_item(1, arm="challenger", reason="audit", pi=0.005)
    if early:
        await tell(redis, report())
    await add_items(redis, [item], 9)
    ((_, outcome),) = await tell(redis, report())
    assert outcome.predicted is None, "its probability would be that of the item, not of the trial"
    await predict(redis, waiting())
    assert [one.predicted for one in await everything(redis)] == [waiting().predicted]


async def test_many_are_read_whole_and_in_order(redis: Redis) -> None:
    await tell(redis, *(report(number) for number in range(450)))
    found = await everything(redis)
    assert [outcome.key for outcome in found] == [f"key-{number}" for number in range(450)]
    cursors = [outcome.cursor for outcome in found]
    assert cursors == sorted(set(cursors))
    assert await everything(redis, cursors[-3]) == found[-2:]
    wanted = [found[5].id, "unknown", found[2].id]
    assert await read_outcomes(redis, "digits", wanted) == [found[5], None, found[2]]
    assert await read_outcomes(redis, "digits", []) == []


async def test_of_too_many_that_wait_the_oldest_go(redis: Redis) -> None:
    fates = OUTCOMES.labels("digits", "dropped")
    before = fates._value.get()
    reports = [report(number) for number in range(5)]
    for one in reports:
        await record_outcomes(redis, "digits", [one], DAY_S, most_waiting=3)
    found = await read_outcomes(redis, "digits", [one.id for one in reports])
    assert [one is not None for one in found] == [False, False, True, True, True]
    assert await redis.zcard(NAMES.outcomes) == 3
    assert await redis.zcard(f"{NAMES.outcomes}:waiting") == 3
    assert fates._value.get() - before == 2
    await predict(redis, waiting(4))
    assert await redis.zcard(f"{NAMES.outcomes}:waiting") == 2, "one that is joined waits no more"
    (kept,) = await record_outcomes(redis, "digits", [reports[4]], DAY_S, most_waiting=3)
    assert kept.fate == "repeated"


async def test_everything_has_its_time(redis: Redis) -> None:
    await predict(redis, waiting())
    await tell(redis, report())
    one, client = report().id, NAMES.client("client-1")
    assert 7 * DAY_S - 60 < await redis.ttl(NAMES.prediction(one)) <= 7 * DAY_S
    assert 30 * DAY_S - 60 < await redis.ttl(NAMES.outcome(one)) <= 30 * DAY_S
    assert 30 * DAY_S - 60 < await redis.ttl(client) <= 30 * DAY_S
    await add_items(redis, [make_item(1, arm="champion")], 9)
    await tell(redis, report(1, key="another"))
    assert await redis.ttl(client) == -1, "as long as the item, which stays"


async def test_what_has_expired_leaves_nothing_behind(redis: Redis) -> None:
    await predict(redis, waiting(), keep_s=1)
    await tell(redis, *(report(1, key=f"key-{number}") for number in range(5)), keep_s=1)
    assert len(await everything(redis)) == 5
    await asyncio.sleep(2.1)
    assert await everything(redis) == []
    assert await redis.exists(NAMES.client("client-1")) == 0
    await predict(redis, waiting(), keep_s=60)
    await tell(redis, report(1, key="new"), keep_s=1)
    assert await redis.zcard(NAMES.outcomes) == 1
    await asyncio.sleep(1.1)
    await tell(redis, report(1, key="newer"))
    assert await redis.zcard(NAMES.client("client-1")) == 2, "the parts of a busy client do not add up for ever"


class Buffer:
    """Predictions on their way, and how many were dropped."""

    def __init__(self, redis: Redis) -> None:
        self.predictions = Predictions(redis, {"digits": Sampler("digits")})
        self._before = self._dropped()

    def offer(self, numbers: Iterable[int]) -> None:
        self.predictions.offer("digits", map(waiting, numbers))

    @property
    def dropped(self) -> float:
        return self._dropped() - self._before

    @staticmethod
    def _dropped() -> float:
        return float(TRIAL_PREDICTIONS.labels("digits", "dropped")._value.get())


async def kept(redis: Redis) -> int:
    return len(await redis.keys(NAMES.prediction("*").replace("{", "[{]").replace("}", "[}]")))


async def test_predictions_are_written_a_moment_later_and_at_the_end(redis: Redis) -> None:
    buffer = Buffer(redis)
    task = asyncio.create_task(buffer.predictions.run())
    buffer.offer(range(250))
    assert await kept(redis) == 0
    await asyncio.sleep(1)
    assert await kept(redis) == 250
    buffer.offer(range(250, 260))
    task.cancel()
    await asyncio.wait([task])
    await buffer.predictions.close()
    assert await kept(redis) == 260
    assert buffer.dropped == 0


@pytest.mark.process
async def test_without_redis_predictions_wait_while_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions_module, "MOST_WAITING", 150)
    valkey = Valkey(tmp_path / "valkey")
    await asyncio.to_thread(valkey.start)
    redis = await connect(valkey.url)
    buffer = Buffer(redis)
    task = asyncio.create_task(buffer.predictions.run())
    try:
        valkey.kill()
        buffer.offer(range(100))
        await asyncio.sleep(1)
        buffer.offer(range(100, 170))
        assert buffer.dropped == 20
        with pytest.raises(StoreUnavailableError):
            await tell(redis, report())
        await asyncio.to_thread(valkey.start)
        for _ in range(100):
            if await kept(redis) == 150:
                break
            await asyncio.sleep(0.1)
        assert await kept(redis) == 150
        buffer.offer(range(170, 180))
        await buffer.predictions.flush()
        assert await kept(redis) == 160, "there is room again"
        valkey.kill()
        buffer.offer(range(180, 185))
        task.cancel()
        await asyncio.wait([task])
        await buffer.predictions.close()
        assert buffer.dropped == 25
    finally:
        task.cancel()
        await redis.aclose()
        valkey.kill()
