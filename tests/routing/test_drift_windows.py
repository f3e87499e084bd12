"""Windows of live rows in Redis: added up over workers, once, and gone in time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rollout.errors import StoreUnavailableError
from rollout.keys import Keys
from rollout.routing import drift_windows
from rollout.routing.drift_windows import DAY, FIVE, HOUR, RESOLUTIONS, Flush, Windows, add_sums, places_of
from rollout.store import Redis, client_of

DIGEST = "0123456789abcdef" * 4
# The third hour of a day, and some minutes.
NOW = 20_000 * DAY + 3 * HOUR + 1000.0


def sums(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, np.float64)


def flush(at: float, *values: float, arm: str = "champion") -> Flush:
    return Flush.of(dict.fromkeys(places_of(DIGEST, arm, at), sums(*values)))  # type: ignore[arg-type]


async def test_workers_add_up(redis: Redis) -> None:
    await add_sums(redis, "digits", flush(NOW, 1, 0, 0.25))
    await add_sums(redis, "digits", flush(NOW, 2, 3, -0.125))
    await add_sums(redis, "digits", flush(NOW, 7, 7, 7, arm="challenger"))
    (window,) = await Windows(redis, "digits", DIGEST, "champion", 3).read(NOW)
    assert (window.start, window.seconds) == (NOW - NOW % 60, 60)
    assert window.vector.tolist() == [3, 3, 0.125]
    assert not await Windows(redis, "digits", "f" * 64, "champion", 3).read(NOW), "another bundle's"
    assert not await Windows(redis, "texts", DIGEST, "champion", 3).read(NOW), "another model's"


async def test_what_comes_again_is_added_once(redis: Redis) -> None:
    one = flush(NOW, 1, 1)
    await add_sums(redis, "digits", one)
    await add_sums(redis, "digits", one)
    (window,) = await Windows(redis, "digits", DIGEST, "champion", 2).read(NOW)
    assert window.vector.tolist() == [1, 1]


async def test_without_redis_it_says_so() -> None:
    client = client_of("redis://127.0.0.1:1")
    with pytest.raises(StoreUnavailableError):
        await add_sums(client, "digits", flush(NOW, 1))
    await client.aclose()


async def test_each_row_is_in_one_window_and_none_is_missing(redis: Redis) -> None:
    ages = [0, 100, FIVE, HOUR, 2 * HOUR, 3 * HOUR, 5 * HOUR, DAY, 1.5 * DAY, 3 * DAY, 20 * DAY, 33 * DAY]
    for age in ages:
        await add_sums(redis, "digits", flush(NOW - age, 1))
    windows = await Windows(redis, "digits", DIGEST, "champion", 1).read(NOW)
    assert sum(window.vector[0] for window in windows) == len(ages)
    ends = [window.start + window.seconds for window in windows]
    starts = [window.start for window in windows]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False)), "oldest first, no overlap"
    assert {window.seconds for window in windows} == {60, FIVE, HOUR, DAY}


async def test_what_is_over_is_not_read_at_each_look(redis: Redis) -> None:
    windows = Windows(redis, "digits", DIGEST, "champion", 1)
    await add_sums(redis, "digits", flush(NOW, 1))
    await add_sums(redis, "digits", flush(NOW - 5 * HOUR, 1))

    async def rows(now: float) -> float:
        return float(sum(window.vector[0] for window in await windows.read(now)))

    assert await rows(NOW) == 2
    await add_sums(redis, "digits", flush(NOW, 1))
    await add_sums(redis, "digits", flush(NOW - 5 * HOUR, 1))
    assert await rows(NOW + 10) == 3, "of five hours ago it is known"
    assert await rows(NOW + drift_windows.AGAIN_S) == 4, "a worker may have been cut off"


@pytest.mark.parametrize("hour", range(0, 24, 5))
def test_what_is_read_is_still_kept(hour: int) -> None:
    now = 20_000 * DAY + hour * HOUR + 3599.0
    for resolution, start in drift_windows._cover(now):
        assert start + resolution.kept_s > now


async def test_they_expire(redis: Redis) -> None:
    one = flush(time.time(), 1)
    await add_sums(redis, "digits", one)
    names = Keys("digits")
    for place in one.sums:
        left = await redis.ttl(names.drift(DIGEST, "champion", place.resolution.name, place.start))
        assert place.resolution.kept_s - 5 < left <= place.resolution.kept_s
    assert 0 < await redis.ttl(names.drift_flush(one.id)) <= drift_windows.FLUSH_KEPT_S
    assert len(await redis.keys()) == 1 + len(RESOLUTIONS)


async def test_what_is_stored_of_another_length_does_no_harm(redis: Redis) -> None:
    await add_sums(redis, "digits", flush(NOW, 1, 2, 3))
    (window,) = await Windows(redis, "digits", DIGEST, "champion", 2).read(NOW)
    assert window.vector.tolist() == [1, 2]
