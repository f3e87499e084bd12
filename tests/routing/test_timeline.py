"""The timeline: what all workers answered, in windows of five minutes and of an hour, which go by themselves."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from rollout import metrics
from rollout.errors import StoreUnavailableError
from rollout.inference.own_counts import OwnCounts
from rollout.keys import Keys
from rollout.routing import timeline, traffic
from rollout.routing.timeline import RESOLUTIONS, Moment, Span, read_timeline
from rollout.routing.traffic import add_traffic
from rollout.store import Redis, client_of
from tests.routing.test_traffic import Clock, Counts, worker

COUNTS: Counts = {
    ("champion", "v1", "predictions"): 6,
    ("champion", "v1", "seconds.3"): 5,
    ("challenger", "v2", "predictions"): 4,
    ("challenger", "v2", "seconds.3"): 2,
    ("challenger", "v2", "confidence.4"): 4,
    ("challenger", "v2", "evidence.3.rows"): 4,
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (timeline, traffic):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=made.time))
    return made


async def test_what_all_workers_and_arms_answered_is_added_up(redis: Redis, clock: Clock) -> None:
    await add_traffic(redis, "digits", COUNTS, worker("a"), {"errors": 1})
    await add_traffic(redis, "digits", COUNTS, worker("b"), {"reviewed": 5})
    for span in RESOLUTIONS:
        *before, last = await read_timeline(redis, "digits", span)
        assert len(before) == RESOLUTIONS[span].shown - 1
        assert {one._replace(at=0, seconds=()) for one in before} == {Moment(0, RESOLUTIONS[span].seconds)}
        assert (last.rows, last.requests, last.errors, last.reviewed) == (20, 14, 1, 5)
        assert last.rate == 20 / last.lasted_s
        assert last.late_s == pytest.approx(0.005, rel=0.3)
        assert (last.error_share, last.review_share) == (1 / 15, 0.25)
    clock.now += 3600
    await add_traffic(redis, "digits", COUNTS, worker("a"))
    day, week = [await read_timeline(redis, "digits", span) for span in ("day", "week")]
    assert [one.rows for one in day if one.rows] == [20, 10]
    assert [one.rows for one in week][-2:] == [20, 10]
    assert day[-1].at - day[-13].at == 3600
    assert Moment(0, 1).late_s is Moment(0, 1).error_share is Moment(0, 1).review_share is None


@pytest.mark.parametrize("span", RESOLUTIONS)
async def test_windows_are_few_small_and_go_by_themselves(redis: Redis, span: Span) -> None:
    counts: Counts = {("champion", "v1", f"seconds.{bucket}"): 1 for bucket in range(14)}
    await add_traffic(redis, "digits", counts | COUNTS, worker(), {"errors": 1, "reviewed": 1})
    length = RESOLUTIONS[span]
    key = Keys("digits").timeline(length.name, int(time.time()) // length.seconds * length.seconds)
    assert length.kept_s - 5 <= await redis.ttl(key) <= length.kept_s
    assert length.kept_s >= length.seconds * (length.shown + 1), "it is there for as long as it is shown"
    assert len(await redis.hkeys(key)) == 17
    assert not [name for name in await redis.hkeys(key) if b"|" in name or b"evidence" in name]


async def test_redis_does_not_answer() -> None:
    with pytest.raises(StoreUnavailableError):
        await read_timeline(client_of("redis://127.0.0.1:1"), "digits", "day")


def test_a_worker_counts_what_failed_by_itself_and_what_went_to_review() -> None:
    metrics.ERRORS.labels("counted", "overloaded").inc(9)
    own = OwnCounts("counted")
    assert dict(own.take()) == {}
    metrics.ERRORS.labels("counted", "overloaded").inc(2)
    metrics.ERRORS.labels("counted", "invalid-request").inc(7)  # the callers' faults
    metrics.REVIEW_ITEMS.labels("counted", "audit", "queued").inc(3)
    metrics.REVIEW_ITEMS.labels("counted", "audit", "dropped").inc(4)
    assert dict(own.take()) == {"errors": 2, "reviewed": 3}
    assert dict(own.take()) == {}
