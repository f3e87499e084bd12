"""Retention: what was to be kept for longer than the policy says by now."""

from __future__ import annotations

from rollout.keys import Keys
from rollout.review.export import in_chunks
from rollout.review.item import milliseconds
from rollout.review.queue import read_items
from rollout.store import Redis, guard

SCANNED = 1000


async def shorten_retention(redis: Redis, model: str, seconds: int) -> None:
    """Lets inputs and outcomes that are older than this expire at once, and the others when they are.

    Raises:
        StoreUnavailableError: If Redis does not answer; doing it again is safe.
    """
    names = Keys(model)
    pattern = names.review("*", ":inputs")
    first, last = pattern.split("*")
    async with guard():
        async for keys in in_chunks(redis.scan_iter(match=pattern, count=SCANNED)):
            ids = [key.decode().removeprefix(first).removesuffix(last) for key in keys]
            pipe = redis.pipeline(transaction=False)
            for item, _ in await read_items(redis, model, ids):
                end = milliseconds(item.at) + seconds * 1000
                pipe.pexpireat(names.review(item.id, ":inputs"), end, lt=True)
                pipe.pexpireat(names.same_inputs(item.same), end, lt=True)
            await pipe.execute()
        async for outcomes in in_chunks(redis.zscan_iter(names.outcomes, count=SCANNED)):
            pipe = redis.pipeline(transaction=False)
            for one, microseconds in outcomes:
                pipe.pexpireat(names.outcome(one.decode()), int(microseconds) // 1000 + seconds * 1000, lt=True)
            await pipe.execute()
