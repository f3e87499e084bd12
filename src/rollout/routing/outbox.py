"""What happens to a trial by itself, as the webhook is told: the outbox is the history of the split."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from rollout.keys import Keys
from rollout.routing.by_itself import CONTROLLER
from rollout.routing.split import Split
from rollout.routing.splits import read_history, read_latest
from rollout.store import Redis
from rollout.webhook import Message


class Acts:
    """The changes of one model's split that came by themselves, as ``rollout.webhook.Outbox`` has them.

    Args:
        redis: Connection.
        model: The model.
    """

    what = "change"

    def __init__(self, redis: Redis, model: str) -> None:
        self._redis = redis
        self.model = model
        self.key = Keys(model).acts_webhook

    async def newest(self) -> int:
        """Returns the revision of the split, 0 where there was none."""
        latest = await read_latest(self._redis, self.model)
        return 0 if latest is None else latest.revision

    async def after(self, cursor: int) -> AsyncIterator[Message]:
        """Yields revisions; those that somebody made say nothing."""
        newest = await self.newest()
        if newest <= cursor:
            return
        history = await read_history(self._redis, self.model, newest - cursor + 1)
        for before, split in zip([None, *history], history, strict=False):
            if split.revision > cursor:
                is_act = split.by == CONTROLLER and split.verdict is not None
                told = event(self.model, before, split) if is_act else None
                yield Message(split.revision, f"{self.model}-split-{split.revision}", told)


def event(model: str, before: Split | None, split: Split) -> dict[str, Any]:
    """Returns what is sent of a change: what it did, and the verdict that it rests on."""
    tried = None if before is None else before.challenger
    if split.challenger is not None:
        kind, tried = "trial.stepped", split.challenger
    else:
        kind = "trial.promoted" if split.champion == tried else "trial.rolled_back"
    return {
        "type": kind,
        "timestamp": split.at,
        "data": {
            "model": model,
            "revision": split.revision,
            "champion": split.champion,
            "challenger": tried,
            "share": split.share,
            "why": split.why,
            "verdict": split.verdict,
        },
    }
