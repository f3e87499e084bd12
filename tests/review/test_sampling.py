"""The sampler: few enough to be looked at, fair enough to speak for all."""

from __future__ import annotations

import math

import pytest

from rollout.errors import InvalidRequestError
from rollout.review.policy import DEFAULT, ReviewPolicy, cache_policy, cached_policy, read_policy, write_policy
from rollout.review.sampling import Sampler
from rollout.store import Redis, client_of

MANY = 100_000


def identities(count: int = MANY) -> list[bytes]:
    return [f"client-{number}\0order-{number}".encode() for number in range(count)]


def test_an_audit_takes_its_share_whoever_asks_and_again_and_again() -> None:
    sampler = Sampler("digits")
    sampler.policy = ReviewPolicy(audit=0.02)
    taken = [identity for identity in identities() if sampler.audits(identity)]
    spread = math.sqrt(MANY * 0.02 * 0.98)
    assert abs(len(taken) - MANY * 0.02) < 4 * spread
    assert taken == [identity for identity in identities() if sampler.audits(identity)]
    other = Sampler("texts")
    other.policy = sampler.policy
    both = sum(other.audits(identity) for identity in taken)
    assert both < 5 * len(taken) * 0.02, "models have nothing to do with each other"


def test_no_audit_takes_nobody_and_all_takes_all() -> None:
    sampler = Sampler("digits")
    for share, expected in ((0.0, 0), (1.0, 1000)):
        sampler.policy = ReviewPolicy(audit=share)
        assert sum(map(sampler.audits, identities(1000))) == expected


async def test_of_a_flood_a_random_part_enters_and_says_so(redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(rates={"low_confidence": 1000}))
    flooded, beside = Sampler("digits"), Sampler("digits")
    await flooded.follow(redis)
    assert [flooded.sample("low_confidence", 1.0, one) for one in identities(10_000)] == [1.0] * 10_000
    await flooded.follow(redis)
    await beside.follow(redis)
    for sampler in (flooded, beside):  # what one worker told holds for all
        entered = [sampler.sample("low_confidence", 1.0, one) for one in identities(10_000)]
        (pi,) = set(entered) - {None}
        assert pi is not None
        assert pi == pytest.approx(0.1, rel=0.02), "unless a minute passes in between"
        kept = sum(one is not None for one in entered)
        assert kept / pi == pytest.approx(10_000, rel=0.1), "they stand for all"
        assert sampler.sample("disagreement", 0.25, b"another reason") == 0.25
    await flooded.follow(redis)
    excess = await redis.hget("rollout:{digits}:reviews:excess", "low_confidence")
    assert int(excess or 0) == pytest.approx(9_000, rel=0.05)


async def test_what_was_not_told_is_told_later(redis: Redis) -> None:
    sampler = Sampler("digits")
    sampler.sample("audit", 0.1, b"one")
    gone = client_of("unix:///nowhere/valkey.sock")
    with pytest.raises(Exception, match="Redis does not answer"):
        await sampler.follow(gone)
    await gone.aclose()
    await sampler.follow(redis)
    offered = [await redis.hgetall(key) for key in await redis.keys("*offered*")]
    assert offered == [{b"audit": b"1"}]


async def test_a_policy_is_kept_in_redis_and_on_disk(
    redis: Redis, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    assert await read_policy(redis, "digits") == DEFAULT == cached_policy(home, "digits")
    policy = ReviewPolicy(audit=0.1, redact=["name"], limits={"audit": 3})
    await write_policy(redis, "digits", policy)
    cache_policy(home, "digits", policy)
    assert await read_policy(redis, "digits") == policy == cached_policy(home, "digits")
    sampler = Sampler("digits")
    assert await sampler.follow(redis)
    assert sampler.policy == policy
    assert not await sampler.follow(redis)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"audit": 1.1}, "audit must be a share from 0 to 1"),
        ({"audit": math.nan}, "audit must be a share from 0 to 1"),
        ({"required_reviews": 0}, "required_reviews must be 1 to 5"),
        ({"retention_days": 0}, "retention_days must be 1 to 3650"),
        ({"rates": {"audit": -1}}, "rates must not be negative"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        ReviewPolicy(**fields)  # type: ignore[arg-type]
