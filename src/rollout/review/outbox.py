"""What people decide, as the webhook is told: the outbox is the sorted set of decisions itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from rollout.keys import Keys
from rollout.review.records import Record, read_changes
from rollout.review.state import State, iso
from rollout.store import Redis, guard, server_time
from rollout.webhook import Message


class Decisions:
    """The decisions on one model's items, as ``rollout.webhook.Outbox`` has them.

    Args:
        redis: Connection.
        model: The model.
    """

    what = "decision"

    def __init__(self, redis: Redis, model: str) -> None:
        self._redis = redis
        self.model = model
        self.key = Keys(model).webhook

    async def newest(self) -> int:
        """Returns now, by the clock that decisions go by."""
        return await server_time(self._redis, self.model)

    async def after(self, cursor: int) -> AsyncIterator[Message]:
        """Yields decisions; of those on one item, the last."""
        async for record in read_changes(self._redis, self.model, cursor):
            if await self._is_current(record):
                yield Message(record.cursor, f"{record.item.id}-{record.cursor}", event(record))

    async def _is_current(self, record: Record) -> bool:
        """Whether there is no later decision on the item, and its client was not forgotten meanwhile."""
        async with guard():
            cursor = await self._redis.zscore(Keys(self.model).reviews("changes"), record.item.id)
        return cursor == record.cursor


def event(record: Record) -> dict[str, Any]:
    """Returns what is sent of a decision: the label, what it is about, and nothing of the inputs."""
    item, work = record.item, record.work
    return {
        "type": "review.resolved" if work.state is State.RESOLVED else "review.retracted",
        "timestamp": iso(record.cursor // 1000),
        "data": {
            "id": item.id,
            "model": item.model,
            "client_id": item.client_id,
            "key": item.key,
            **work.said,
            "reviewers": [review.reviewer for review in work.reviews],
            "reason": item.reason,
            "pi": item.pi,
            "arm": item.arm,
            "version": item.version,
            "decided_at": work.decided_at,
            "links": [{"id": link.id, "key": link.key} for link in record.links],
            "cursor": record.cursor,
        },
    }
