"""The webhook: tells a team's own service what happens, signed, in order and at least once.

What is told is kept by others already, in order: that is the outbox, and all that is kept here is the cursor of
the last of it that arrived. Headers and signature are those of Standard Webhooks, https://www.standardwebhooks.com.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import aiohttp
import msgspec

from rollout import metrics, outgoing
from rollout.errors import StoreUnavailableError
from rollout.lease import Lease
from rollout.store import Redis, advance, guard, is_cancelled, report, stored_at

POLL_S = 1.0
# One attempt ends well before the lock does.
TIMEOUT_S = 10.0
# In bytes: nobody reads it, but a connection whose answer has come whole is used again.
LARGEST_ANSWER = 16 * 1024
LOCK_S = 30.0
RENEW_S = 10.0
RETRY_S = 1.0
LONGEST_RETRY_S = 300.0

logger = logging.getLogger(__name__)


class Message(NamedTuple):
    """Something that happened.

    Attributes:
        cursor: Its place in the outbox, growing.
        id: The same for each attempt.
        event: What is sent, as JSON; ``None`` where this is not to be told.
    """

    cursor: int
    id: str
    event: dict[str, Any] | None


class Outbox(Protocol):
    """What happens to a model, in order.

    Attributes:
        model: The model.
        what: What each message is about, for the log.
        key: Of the cursor in Redis; with ``:lock``, the worker that delivers.
    """

    model: str
    what: str
    key: str

    async def newest(self) -> int:
        """Returns a cursor that everything that happens from now on is beyond.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """

    def after(self, cursor: int) -> AsyncIterator[Message]:
        """Yields what happened after a cursor, each as it is known when the one before has been delivered.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """


class Webhook:
    """Delivers what is in an outbox; of all workers, one does.

    Args:
        redis: Connection.
        outbox: What is told.
        url: Where it goes.
        key: What signs it.
        poll_s: Seconds between looks for new messages.
        retry_s: Seconds to the second attempt; each further wait is twice as long.
        longest_retry_s: Seconds that no wait exceeds.
    """

    def __init__(
        self,
        redis: Redis,
        outbox: Outbox,
        url: str,
        key: bytes,
        *,
        poll_s: float = POLL_S,
        retry_s: float = RETRY_S,
        longest_retry_s: float = LONGEST_RETRY_S,
    ) -> None:
        self._redis = redis
        self._outbox = outbox
        self._url = url
        self._key = key
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._longest_retry_s = longest_retry_s
        self._lease = Lease(redis, f"{outbox.key}:lock", LOCK_S)
        self._failures = 0
        self._is_gone = False

    async def run(self) -> None:
        """Delivers for ever, or until the receiver answers 410: it is gone."""
        async with outgoing.session(TIMEOUT_S, LARGEST_ANSWER) as session:
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
            logger.exception("the webhook of %s could not be served; trying again", self._outbox.model)

    async def _deliver(self, session: aiohttp.ClientSession) -> bool:
        """Delivers what is there; returns whether all of it arrived."""
        async for message in self._outbox.after(await self._cursor()):
            if not await self._lease.hold():
                return True
            if message.event is not None:
                if not await self._post(session, message.id, message.event):
                    return False
                self._failures = 0
            await advance(self._redis, self._outbox.key, message.cursor)
        return True

    async def _post(self, session: aiohttp.ClientSession, message_id: str, event: dict[str, Any]) -> bool:
        model, what = self._outbox.model, self._outbox.what
        body = msgspec.json.encode(event)
        headers = {"Content-Type": "application/json"}
        headers |= signed(message_id, int(time.time()), body, self._key)
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                status, arrived = str(response.status), 200 <= response.status < 300
                self._is_gone = response.status == 410
        except (aiohttp.ClientError, TimeoutError) as error:
            status, arrived = type(error).__name__, False
        metrics.WEBHOOKS.labels(model, "delivered" if arrived else "failed").inc()
        if self._is_gone:
            logger.error("the webhook answers 410: no %s of %s is sent until the next start", what, model)
        elif not arrived:
            logger.warning("the webhook did not take a %s of %s (%s); trying again", what, model, status)
        return arrived

    async def _wait(self) -> None:
        """Waits before the next attempt, and stays the one who makes it."""
        longest = min(self._longest_retry_s, self._retry_s * 2.0 ** min(self._failures - 1, 30))
        until = time.monotonic() + longest * random.uniform(0.5, 1)  # noqa: S311  no secret
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, RENEW_S))
            await self._lease.hold()

    async def _cursor(self) -> int:
        """Returns how far deliveries got; the first time, what happened before does not count."""
        newest = await self._outbox.newest()
        key = self._outbox.key
        async with guard():
            await self._redis.set(key, newest, nx=True)
            found = await self._redis.get(key)
        with stored_at(key):
            return int(found or newest)


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
