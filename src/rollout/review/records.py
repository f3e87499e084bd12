"""What was decided, in the order of the last decisions: labels on their way out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

from rollout.keys import Keys
from rollout.review.item import ReviewItem
from rollout.review.queue import CHUNK, read_items, read_work, with_inputs
from rollout.review.state import Event, Work
from rollout.store import Redis, decode_each, guard, stored_at


class Record(NamedTuple):
    """An item that was decided, as it stands now.

    Attributes:
        cursor: Microseconds since 1970 of the last decision, growing within a model.
        item: The item.
        work: What became of it; where it is not resolved, a label was taken back.
        links: Predictions with the same inputs under other keys, which share its label.
        events: Its steps, oldest first.
    """

    cursor: int
    item: ReviewItem
    work: Work
    links: list[ReviewItem]
    events: list[Event]


async def read_changes(redis: Redis, model: str, since: int = 0) -> AsyncIterator[Record]:
    """Yields every item that was resolved, once, in the order of the last decisions.

    Args:
        redis: Connection.
        model: The model.
        since: Cursor of the last record seen, or microseconds since 1970; later ones are given.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    names = Keys(model)
    while True:
        async with guard():
            found: list[Any] = await redis.zrangebyscore(
                names.reviews("changes"), f"({since}", "+inf", 0, CHUNK, withscores=True
            )
            if not found:
                return
            with stored_at(names.reviews("changes")):
                ids = [item_id.decode() for item_id, _ in found]
                cursors = [int(cursor) for _, cursor in found]
            pipe = redis.pipeline(transaction=False)
            for item_id in ids:
                pipe.smembers(names.review(item_id, ":links"))
                pipe.lrange(names.review(item_id, ":events"), 0, -1)
            more = await pipe.execute()
        items = {item.id: (item, work) for item, work in await read_items(redis, model, ids)}
        found = list(zip(cursors, ids, more[::2], more[1::2], strict=True))
        for group in _by_links(found):
            linked_ids = [one.decode() for _, _, links, _ in group for one in links]
            by_primary: dict[str | None, list[ReviewItem]] = {}
            for link, _ in await read_items(redis, model, linked_ids):
                by_primary.setdefault(link.linked_to, []).append(link)
            heads = [items[item_id][0] for _, item_id, _, _ in group if item_id in items]
            whole = with_inputs(redis, model, heads)
            for cursor, item_id, _, events in group:
                since = cursor
                if item_id in items:
                    item, work = await anext(whole), items[item_id][1]
                    steps = decode_each(((names.review(item_id, ":events"), event) for event in events), Event)
                    yield Record(since, item, read_work(work), by_primary.get(item_id, []), steps)


def _by_links(found: list[Any]) -> Iterator[list[Any]]:
    """Yields what was found in groups: callers decide how much is linked to an item, which fills no memory."""
    group: list[Any] = []
    count = 0
    for one in found:
        if group and count + len(one[2]) > CHUNK:
            yield group
            group, count = [], 0
        group.append(one)
        count += len(one[2])
    yield group
