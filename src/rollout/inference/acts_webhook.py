"""The webhook of trials: tells what happened by itself, in order and at least once, signed as decisions are.

The outbox is the history of the split: all that is kept is the last revision that arrived.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec

from rollout import metrics
from rollout.errors import StoreUnavailableError
from rollout.keys import Keys
from rollout.lease import Lease
from rollout.review.webhook import LOCK_S, LONGEST_RETRY_S, POLL_S, RETRY_S, TIMEOUT_S, signed
from rollout.routing.by_itself import CONTROLLER
from rollout.routing.split import Split
from rollout.routing.splits import read_history, read_latest
from rollout.store import Redis, guard, is_cancelled, report

logger = logging.getLogger(__name__)


class ActsWebhook:
    """Tells of the changes of one model's split that came by themselves; of all workers, one does.

    Args:
        redis: Connection.
        model: The model.
        url: Where they go.
        key: What signs them.
    """

    def __init__(self, redis: Redis, model: str, url: str, key: bytes) -> None:
        self._redis = redis
        self._model = model
        self._url = url
        self._signing = key
        self._key = Keys(model).acts_webhook
        self._lease = Lease(redis, f"{self._key}:lock", LOCK_S)
        self._failures = 0

    async def run(self) -> None:
        """Tells for ever."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                while not is_cancelled():
                    wait_s = POLL_S
                    try:
                        if await self._lease.hold() and not await self._tell(session):
                            wait_s = min(LONGEST_RETRY_S, RETRY_S * 2.0 ** min(self._failures, 30))
                            self._failures += 1
                    except StoreUnavailableError as error:
                        report(error)
                    except Exception:
                        logger.exception("the webhook of %s could not be told; trying again", self._model)
                    await asyncio.sleep(wait_s)
            finally:
                with suppress(StoreUnavailableError):
                    await self._lease.release()

    async def _tell(self, session: aiohttp.ClientSession) -> bool:
        """Tells what is new; returns whether all of it arrived. What was before the first start is not new."""
        latest = await read_latest(self._redis, self._model)
        if latest is None:
            return True
        async with guard():
            await self._redis.set(self._key, latest.revision, nx=True)
            told = int(await self._redis.get(self._key) or latest.revision)
        if told >= latest.revision:
            return True
        history = await read_history(self._redis, self._model, latest.revision - told + 1)
        for before, split in zip([None, *history], history, strict=False):
            if split.revision <= told:
                continue
            if split.by == CONTROLLER and split.verdict is not None:
                if not await self._post(session, before, split):
                    return False
                self._failures = 0
            async with guard():
                await self._redis.set(self._key, split.revision)
        return True

    async def _post(self, session: aiohttp.ClientSession, before: Split | None, split: Split) -> bool:
        body = msgspec.json.encode(event(self._model, before, split))
        headers = {"Content-Type": "application/json"}
        headers |= signed(f"{self._model}-split-{split.revision}", int(time.time()), body, self._signing)
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                arrived = 200 <= response.status < 300
        except (aiohttp.ClientError, TimeoutError):
            arrived = False
        metrics.WEBHOOKS.labels(self._model, "delivered" if arrived else "failed").inc()
        return arrived


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
