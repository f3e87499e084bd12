"""Traffic: what the arms answered lately, added up over all workers, and which workers serve."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rollout.buckets import CONFIDENCE_BUCKETS, SECONDS_BUCKETS
from rollout.errors import StoreUnavailableError
from rollout.keys import Keys
from rollout.routing import traffic
from rollout.routing.assignment import Arm
from rollout.routing.traffic import (
    EVIDENCE_KEPT_S,
    KEPT_S,
    SILENT_S,
    ArmTraffic,
    Worker,
    add_traffic,
    read_traffic,
    read_workers,
)
from rollout.store import Redis, client_of

NOON = 1_764_000_000.0
Counts = dict[tuple[Arm, str, str], int]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(traffic, "time", SimpleNamespace(time=made.time))
    return made


def worker(name: str = "host-1", revision: int = 3) -> Worker:
    return Worker(id=name, revision=revision, variants={"v1": "onnx", "v2": "onnx-int8"})


def predictions(count: int, arm: Arm = "champion", version: str = "v1") -> Counts:
    return {(arm, version, "predictions"): count}


async def test_nothing_was_answered(redis: Redis) -> None:
    assert await read_traffic(redis, "digits") == []
    assert await read_workers(redis, "digits") == []


async def test_what_workers_answered_is_added_up_by_arm_and_version(redis: Redis) -> None:
    challenger: Counts = {
        ("challenger", "v2", "predictions"): 5,
        ("challenger", "v2", "failures"): 2,
        ("challenger", "v2", "fallbacks.error"): 1,
        ("challenger", "v2", "fallbacks.breaker"): 1,
        ("challenger", "v2", "seconds.3"): 4,
        ("challenger", "v2", f"seconds.{len(SECONDS_BUCKETS)}"): 1,
        ("challenger", "v2", f"confidence.{len(CONFIDENCE_BUCKETS)}"): 3,
    }
    champion: Counts = {
        ("champion", "v1", name): number
        for number, name in enumerate(["agreed", "disagreed", "shadow_failed", "shadow_dropped"], start=1)
    }
    await add_traffic(redis, "digits", challenger | champion, worker("a"))
    await add_traffic(redis, "digits", challenger, worker("b"))
    await add_traffic(redis, "digits", predictions(9, "control"), worker("b"))
    one, other, control = await read_traffic(redis, "digits")
    assert (one.arm, one.version, one.predictions, one.failures) == ("challenger", "v2", 10, 4)
    assert one.fallbacks == {"error": 2, "breaker": 2}
    assert (one.seconds[3], one.seconds[-1], sum(one.seconds)) == (8, 2, 10)
    assert (one.confidence[-1], sum(one.confidence)) == (6, 6)
    assert (other.arm, other.agreed, other.disagreed, other.shadow_failed, other.shadow_dropped) == (
        "champion",
        *(1, 2, 3, 4),
    )
    assert (control.arm, control.predictions, control.fallbacks) == ("control", 9, {})


async def test_evidence_is_kept_by_revision_and_longer(redis: Redis) -> None:
    for revision in (2, 3):
        counts: Counts = {
            ("challenger", "v2", f"evidence.{revision}.requests"): 10 * revision,
            ("challenger", "v2", f"evidence.{revision}.failures|7|y"): revision,
        }
        await add_traffic(redis, "digits", counts, worker("a"))
        await add_traffic(redis, "digits", counts, worker("b"))
    assert await read_traffic(redis, "digits") == []
    key = Keys("digits").evidence(3)
    assert await redis.hgetall(key) == {b"challenger|requests": b"60", b"challenger|failures|7|y": b"6"}
    assert EVIDENCE_KEPT_S - 5 <= await redis.ttl(key) <= EVIDENCE_KEPT_S


async def test_one_arm_served_by_two_versions_is_two_lines(redis: Redis) -> None:
    await add_traffic(redis, "digits", predictions(1) | predictions(2, version="v2"), worker())
    assert [(one.version, one.predictions) for one in await read_traffic(redis, "digits")] == [
        ("v1", 1),
        ("v2", 2),
    ]


async def test_models_are_counted_apart(redis: Redis) -> None:
    await add_traffic(redis, "digits", predictions(1), worker())
    assert await read_traffic(redis, "languages") == []
    assert await read_workers(redis, "languages") == []


async def test_only_the_window_counts(redis: Redis, clock: Clock) -> None:
    for count in (1, 10, 100):
        await add_traffic(redis, "digits", predictions(count), worker())
        clock.now += 60
    clock.now -= 60
    seen = [await read_traffic(redis, "digits", seconds) for seconds in (0, 59, 60, 119, 120, 3600)]
    assert [arms[0].predictions for arms in seen] == [100, 100, 110, 110, 111, 111]
    clock.now += 300
    assert [arm.predictions for arm in await read_traffic(redis, "digits")] == [100], "five minutes, unless said"
    clock.now += 10
    assert await read_traffic(redis, "digits") == []


async def test_counts_expire_within_an_hour_of_the_last(redis: Redis) -> None:
    await add_traffic(redis, "digits", predictions(1), worker())
    (key,) = await redis.keys(Keys("digits").traffic(0)[:-1] + "*")
    assert KEPT_S - 5 <= await redis.ttl(key) <= KEPT_S


async def test_a_worker_that_answered_nothing_still_says_that_it_is_there(redis: Redis, clock: Clock) -> None:
    await add_traffic(redis, "digits", {}, worker())
    assert await redis.keys("*traffic*") == []
    (found,) = await read_workers(redis, "digits")
    assert (found.id, found.revision, found.breaker, found.refused, found.at) == (
        "host-1",
        3,
        "closed",
        "",
        NOON,
    )
    assert found.variants == {"v1": "onnx", "v2": "onnx-int8"}


async def test_a_worker_says_the_latest_and_workers_come_in_order(redis: Redis) -> None:
    for one in (worker("b"), worker("a"), worker("b", revision=4)):
        await add_traffic(redis, "digits", {}, one)
    assert [(one.id, one.revision) for one in await read_workers(redis, "digits")] == [("a", 3), ("b", 4)]


async def test_a_worker_that_is_silent_for_a_minute_is_forgotten(redis: Redis, clock: Clock) -> None:
    await add_traffic(redis, "digits", {}, worker("gone"))
    clock.now += SILENT_S
    await add_traffic(redis, "digits", {}, worker("here"))
    assert [one.id for one in await read_workers(redis, "digits")] == ["gone", "here"]
    clock.now += 1
    assert [one.id for one in await read_workers(redis, "digits")] == ["here"]
    assert await redis.hkeys(Keys("digits").workers) == [b"here"], "and takes no room"
    await add_traffic(redis, "digits", {}, worker("gone"))
    assert len(await read_workers(redis, "digits")) == 2, "and is welcome back"


async def test_without_redis_nothing_is_known() -> None:
    gone = client_of("redis://127.0.0.1:1")
    for attempt in (
        add_traffic(gone, "digits", {}, worker()),
        read_traffic(gone, "digits"),
        read_workers(gone, "digits"),
    ):
        with pytest.raises(StoreUnavailableError):
            await attempt
    await gone.aclose()


def timed(**counts: int) -> ArmTraffic:
    """Requests by index of their bucket: ``s0`` up to 0.5 ms, ``s1`` up to 1 ms, ``s3`` 2 to 5 ms."""
    made = ArmTraffic(arm="champion", version="v1")
    for name, count in counts.items():
        made.seconds[int(name[1:])] = count
    return made


@pytest.mark.parametrize(
    ("arm", "quantile", "seconds"),
    [
        (timed(s0=10), 0, 0),
        (timed(s0=10), 0.5, 0.00025),
        (timed(s0=10), 1, 0.0005),
        (timed(s3=4), 0.5, 0.0035),
        (timed(s3=4), 0.25, 0.00275),
        (timed(s0=50, s1=50), 0.5, 0.0005),
        (timed(s0=50, s1=50), 0.75, 0.00075),
        (timed(s0=98, s9=2), 0.99, 0.35),
        (timed(s0=98, s9=2), 0.98, 0.0005),
        (timed(s1=2, s12=2), 0.75, 3.5),
        (timed(s13=1), 0.5, 5),  # longer than the last bucket: at least so long
        (timed(s0=1, s13=99), 0.99, 5),
    ],
)
def test_quantiles_are_interpolated_within_their_bucket(arm: ArmTraffic, quantile: float, seconds: float) -> None:
    assert arm.latency(quantile) == pytest.approx(seconds)


def test_rates_need_something_to_be_rates_of() -> None:
    silent = ArmTraffic(arm="champion", version="v1")
    assert (silent.latency(0.5), silent.failure_rate, silent.agreement) == (None, None, None)
    some = ArmTraffic(
        arm="challenger", version="v2", predictions=8, failures=2, fallbacks={"error": 2}, agreed=9, disagreed=1
    )
    assert (some.failure_rate, some.agreement) == (0.25, 0.9)
    champion = ArmTraffic(arm="champion", version="v1", predictions=6, failures=2)
    assert champion.failure_rate == 0.25
    idle = ArmTraffic(arm="challenger", version="v2", predictions=6, fallbacks={"breaker": 6})
    assert idle.failure_rate is None, "it was not asked"


def test_arms_do_not_share_their_counts() -> None:
    one, other = (ArmTraffic(arm="champion", version=version) for version in ("v1", "v2"))
    one.seconds[0] += 1
    one.fallbacks["error"] = 1
    assert (other.seconds[0], other.fallbacks) == (0, {})
