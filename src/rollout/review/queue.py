"""The queue in Redis: adding items once, and listing them."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec

from rollout.review.item import ReviewItem
from rollout.store import Keys, Redis, guard

LIST_CHUNK = 200

# KEYS: open items, then each item. ARGV: limit, then for each item its ID, time and JSON.
# Returns for each item 1 where the queue has it now, 0 where the queue is full.
ADD = """
local kept = {}
for i = 2, #KEYS do
    local first = (i - 2) * 3 + 2
    if redis.call('EXISTS', KEYS[i]) == 1 then
        kept[i - 1] = 1
    elseif redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
        kept[i - 1] = 0
    else
        redis.call('SET', KEYS[i], ARGV[first + 2])
        redis.call('ZADD', KEYS[1], ARGV[first + 1], ARGV[first])
        kept[i - 1] = 1
    end
end
return kept
"""


async def add_items(redis: Redis, items: Sequence[ReviewItem], limit: int) -> list[bool]:
    """Adds items that the queue does not have yet.

    Args:
        redis: Connection.
        items: Items of one or several models.
        limit: Most open items of a model.

    Returns:
        For each item, in order, whether the queue has it now; ``False`` means that the queue is full.

    Raises:
        StoreUnavailableError: If Redis does not answer; some items may have been added.
    """
    kept: dict[tuple[str, str], bool] = {}
    async with guard():
        for model, group in groupby(sorted(items, key=attrgetter("model")), key=attrgetter("model")):
            chunk = list(group)
            names = Keys(model)
            arguments: list[str | bytes | float] = [limit]
            for item in chunk:
                arguments += [item.id, _milliseconds(item.at), msgspec.json.encode(item)]
            keys = [names.open_reviews, *(names.review(item.id) for item in chunk)]
            answers = await redis.eval(ADD, len(keys), *keys, *arguments)
            kept.update(((model, item.id), bool(answer)) for item, answer in zip(chunk, answers, strict=True))
    return [kept[item.model, item.id] for item in items]


async def list_items(
    redis: Redis, model: str, filters: Mapping[str, str], since: str | None = None
) -> AsyncIterator[ReviewItem]:
    """Yields the open items of a model, oldest first.

    Args:
        redis: Connection.
        model: The model.
        filters: Fields of ``ReviewItem`` with the values wanted.
        since: Earliest time, ISO 8601; all where it is ``None``.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    names = Keys(model)
    start: float = float("-inf") if since is None else _milliseconds(since)
    offset = 0
    while True:
        async with guard():
            ids: list[Any] = await redis.zrangebyscore(names.open_reviews, start, "+inf", offset, LIST_CHUNK)
            found = await redis.mget([names.review(item.decode()) for item in ids]) if ids else []
        if not ids:
            return
        for data in found:
            if data is None:
                continue
            item = msgspec.json.decode(data, type=ReviewItem)
            if all(getattr(item, field) == value for field, value in filters.items()):
                yield item
        offset += len(ids)


def _milliseconds(iso: str) -> float:
    moment = datetime.datetime.fromisoformat(iso)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp() * 1000
