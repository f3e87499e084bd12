"""Review items and decisions on them, many at a time, as they would be stored one by one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from rollout.heads import Truth
from rollout.keys import Keys
from rollout.review import state
from rollout.review.item import ReviewItem
from rollout.review.queue import add_items, read_items, read_work
from rollout.review.transitions import Transition, commit
from rollout.store import Redis

GROUP = 250
COPIED = 1000
MOST = 1_000_000

# KEYS: changes. ARGV: prefix of items, ID of a decided one, first number, last number: each is a copy of it.
COPY = """
local prefix, original = ARGV[1], ARGV[2]
local json = redis.call('GET', prefix .. original)
for number = ARGV[3], ARGV[4] do
    local id = string.format('%032x', number)
    redis.call('SET', prefix .. id, (string.gsub(json, original, id)))
    for _, part in ipairs({':inputs', ':work', ':events'}) do
        redis.call('COPY', prefix .. original .. part, prefix .. id .. part)
    end
    redis.call('ZADD', KEYS[1], number, id)
end
"""


async def fill(redis: Redis, items: Sequence[ReviewItem]) -> None:
    """Adds items to the queue."""
    async with _sparing_the_disk(redis):
        for start in range(0, len(items), GROUP):
            assert all(await add_items(redis, items[start : start + GROUP], MOST))


async def decide(
    redis: Redis, answers: Mapping[str, Truth], reviewer: str = "ada", model: str = "digits"
) -> None:
    """Answers items of a model: claimed and resolved by one reviewer, in order."""
    ids = list(answers)
    async with _sparing_the_disk(redis):
        for start in range(0, len(ids), GROUP):
            now = time.time_ns() // 1_000_000
            transitions = []
            for item, stored in await read_items(redis, model, ids[start : start + GROUP]):
                before = read_work(stored)
                claimed, _ = state.claim(before, reviewer, "token", now + 1000, now)
                assert claimed.lease is not None
                after, event = state.resolve(claimed, claimed.lease, answers[item.id], now, 1, item.head.agreed)
                transitions.append(Transition(item, stored, before, after, event))
            assert all(await commit(redis, model, transitions))


async def multiply(redis: Redis, item: ReviewItem, count: int) -> None:
    """Makes so many decided items of one, faster than people and their transitions would."""
    names = Keys("digits")
    async with _sparing_the_disk(redis):
        for first in range(1, count, COPIED):
            last = min(first + COPIED, count) - 1
            await redis.eval(COPY, 1, names.reviews("changes"), names.review(""), item.id, first, last)


@asynccontextmanager
async def _sparing_the_disk(redis: Redis) -> AsyncIterator[None]:
    """Lets the server answer before its disk does, which may be busy."""
    await redis.config_set("appendfsync", "no")
    try:
        yield
    finally:
        await redis.config_set("appendfsync", "always")
