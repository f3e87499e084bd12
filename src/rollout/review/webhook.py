"""The webhook: tells a team's own service what people decide; signed, in order, at least once.

The outbox is the sorted set of decisions itself: all that is kept is the cursor of the last one that arrived.
Headers and signature are those of Standard Webhooks, https://www.standardwebhooks.com.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import random
import time
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec

from rollout import metrics
from rollout.errors import StoreUnavailableError
from rollout.keys import Keys
from rollout.lease import Lease
from rollout.review.records import Record, read_changes
from rollout.review.state import State, iso
from rollout.store import Redis, guard, is_cancelled, report, server_time

POLL_S = 1.0
# One attempt ends well before the lock does.
TIMEOUT_S = 10.0
LOCK_S = 30.0
RENEW_S = 10.0
RETRY_S = 1.0
LONGEST_RETRY_S = 300.0

# KEYS: cursor. ARGV: cursor of what arrived. It never goes back, not even after a lock was lost.
ADVANCE = """
if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1])
end
"""

logger = logging.getLogger(__name__)


class Webhook:
    """Delivers the decisions on one model's items; of all workers, one does.

    Args:
        redis: Connection.
        model: The model.
        url: Where they go.
        key: What signs them.
        poll_s: Seconds between looks for new ones.
        retry_s: Seconds to the second attempt; each further wait is twice as long.
        longest_retry_s: Seconds that no wait exceeds.
    """

    def __init__(
        self,
        redis: Redis,
        model: str,
        url: str,
        key: bytes,
        *,
        poll_s: float = POLL_S,
        retry_s: float = RETRY_S,
        longest_retry_s: float = LONGEST_RETRY_S,
    ) -> None:
        self._redis = redis
        self._model = model
        self._keys = Keys(model)
        self._url = url
        self._key = key
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._longest_retry_s = longest_retry_s
        self._lease = Lease(redis, self._keys.webhook_lock, LOCK_S)
        self._failures = 0
        self._is_gone = False

    async def run(self) -> None:
        """Delivers for ever, or until the receiver answers 410: it is gone."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                while not self._is_gone:
                    await self._look(session)
                    if is_cancelled():
                        break
                    await asyncio.sleep(self._poll_s)
            finally:
                with suppress(StoreUnavailableError):
                    await self._lease.release()

    async def _look(self, session: aiohttp.ClientSession) -> None:
        try:
            if await self._lease.hold() and not await self._deliver(session) and not self._is_gone:
                self._failures += 1
                await self._wait()
        except StoreUnavailableError as error:
            report(error)
        except Exception:
            logger.exception("the webhook of %s could not be served; trying again", self._model)

    async def _deliver(self, session: aiohttp.ClientSession) -> bool:
        """Delivers what is there; returns whether all of it arrived."""
        async for record in read_changes(self._redis, self._model, await self._cursor()):
            if not await self._lease.hold():
                return True
            if not await self._is_current(record):
                continue
            if not await self._post(session, record):
                return False
            self._failures = 0
            async with guard():
                await self._redis.eval(ADVANCE, 1, self._keys.webhook, record.cursor)
        return True

    async def _post(self, session: aiohttp.ClientSession, record: Record) -> bool:
        body = msgspec.json.encode(event(record))
        headers = {"Content-Type": "application/json"}
        headers |= signed(f"{record.item.id}-{record.cursor}", int(time.time()), body, self._key)
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                status, arrived = str(response.status), 200 <= response.status < 300
                self._is_gone = response.status == 410
        except (aiohttp.ClientError, TimeoutError) as error:
            status, arrived = type(error).__name__, False
        metrics.WEBHOOKS.labels(self._model, "delivered" if arrived else "failed").inc()
        if self._is_gone:
            logger.error("the webhook answers 410: nothing of %s is sent until the next start", self._model)
        elif not arrived:
            logger.warning("the webhook did not take a decision on %s (%s); trying again", self._model, status)
        return arrived

    async def _wait(self) -> None:
        """Waits before the next attempt, and stays the one who makes it."""
        longest = min(self._longest_retry_s, self._retry_s * 2.0 ** min(self._failures - 1, 30))
        until = time.monotonic() + longest * random.uniform(0.5, 1)  # noqa: S311  no secret
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, RENEW_S))
            await self._lease.hold()

    async def _cursor(self) -> int:
        """Returns how far deliveries got; the first time, what was decided before does not count."""
        async with guard():
            now = await server_time(self._redis, self._model)
            await self._redis.set(self._keys.webhook, now, nx=True)
            return int(await self._redis.get(self._keys.webhook) or now)

    async def _is_current(self, record: Record) -> bool:
        """Whether there is no later decision on the item, and its client was not forgotten meanwhile."""
        async with guard():
            cursor = await self._redis.zscore(self._keys.reviews("changes"), record.item.id)
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


def signed(message_id: str, timestamp: int, body: bytes, key: bytes) -> dict[str, str]:
    """Returns the headers of a message in Standard Webhooks.

    Args:
        message_id: The same for each attempt.
        timestamp: Of this attempt, seconds since 1970.
        body: What is sent.
        key: What signs it.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }
