"""Since when something waits for a decision: all that was predicted before has one, unless it went unseen."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rollout.keys import Keys
from rollout.review.item import Reason, milliseconds
from rollout.review.queue import CHUNK, PLACES, read_items, read_work
from rollout.review.state import State
from rollout.store import Redis, guard


async def undecided_since(
    redis: Redis, model: str, arms: Collection[str], reasons: Collection[Reason], first: int
) -> int | None:
    """Returns when the earliest item that waits for a decision was predicted, milliseconds since 1970.

    Open items lie by their rank, which is at most their time: where a rank is later than the earliest time so
    far, none that follows is earlier.

    Args:
        redis: Connection.
        model: The model.
        arms: Items of these arms count.
        reasons: Those that are there for these reasons.
        first: The earliest revision of the split that counts.

    Returns:
        The time; ``None`` where nothing waits.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    earliest: int | None = None
    for state in (State.OPEN, State.LEASED, State.ESCALATED):
        for place in PLACES[state]:
            offset = 0
            while True:
                async with guard():
                    found: list[Any] = await redis.zrange(
                        Keys(model).reviews(place), offset, offset + CHUNK - 1, withscores=True
                    )
                if not found:
                    break
                ids = [one.decode() for one, _ in found]
                times = [
                    milliseconds(item.at)
                    for item, _ in await read_items(redis, model, ids)
                    if item.arm in arms and item.reason in reasons and item.revision >= first
                ]
                earliest = min([*times, *([] if earliest is None else [earliest])], default=None)
                offset += len(found)
                if state is State.OPEN and earliest is not None and found[-1][1] * 1000 > earliest:
                    break
    return earliest


async def is_any_unseen(
    redis: Redis, model: str, arms: Collection[str], reasons: Collection[Reason], first: int, since: int
) -> bool:
    """Whether an item was retired before anybody decided on it: those that wait longest are no fair sample.

    Args:
        redis: Connection.
        model: The model.
        arms: Items of these arms count.
        reasons: Those that are there for these reasons.
        first: The earliest revision of the split that counts.
        since: What was retired earlier does not count, milliseconds since 1970.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    (place,) = PLACES[State.SKIPPED]
    offset = 0
    while True:
        async with guard():
            found: list[Any] = await redis.zrangebyscore(Keys(model).reviews(place), since, "inf", offset, CHUNK)
        if not found:
            return False
        read = await read_items(redis, model, [one.decode() for one in found])
        if any(
            item.arm in arms
            and item.reason in reasons
            and item.revision >= first
            and read_work(stored).decided is None
            for item, stored in read
        ):
            return True
        offset += len(found)
