"""The review log: an item is durable, in Redis or on the spool, before its caller is told so."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from rollout import metrics
from rollout.errors import StoreUnavailableError
from rollout.review.item import ReviewItem
from rollout.review.policy import ReviewPolicy
from rollout.review.queue import FOREVER, Budget, add_items
from rollout.review.sampling import Sampler
from rollout.review.spool import Spool
from rollout.store import Redis, guard, is_cancelled, report

Fate = Literal["queued", "deferred", "dropped"]
# What Redis takes at once, well within the time that it is given.
COMMIT_AT_MOST = 256
# A store that is syncing its disk takes in what comes meanwhile, and syncs once for all of it.
COMMITS_AT_ONCE = 4
COMMIT_BYTES = 4 * 1024 * 1024
DRAIN_EVERY_S = 0.5
# Callers wait no longer for Redis, however many of its servers do not answer.
KEEP_WITHIN_S = 2.0
SAY_EVERY_S = 60.0
NO_SAMPLERS: Mapping[str, Sampler] = {}

logger = logging.getLogger(__name__)


class ReviewLog:
    """Writes review items in groups: while some groups are on their way, the next one collects.

    Args:
        redis: Connection.
        spool: Takes the items while Redis is away.
        limit: Most open items of a model.
        budget: What they may weigh.
        samplers: How items are kept, by model; models that come later add theirs.
    """

    def __init__(
        self,
        redis: Redis,
        spool: Spool,
        limit: int,
        samplers: Mapping[str, Sampler] = NO_SAMPLERS,
        budget: Budget | None = None,
    ) -> None:
        self._redis = redis
        self._spool = spool
        self._limit = limit
        self._budget = budget
        self.samplers = dict(samplers)
        self._losses = _Losses(spool)
        self._waiting: list[tuple[ReviewItem, asyncio.Future[Fate]]] = []
        self._committing: set[asyncio.Task[None]] = set()
        self._is_beginning = False  # a commit will begin in this turn of the event loop
        self._draining: asyncio.Task[None] | None = None
        self._redis_is_away = False

    def start(self) -> None:
        """Starts draining what an earlier run left on the spool, and what will come."""
        self._draining = asyncio.get_running_loop().create_task(self._drain_forever())

    async def close(self) -> None:
        """Ends after everything that waits is durable."""
        while self._committing:
            await asyncio.wait(self._committing)
        if self._draining is not None:
            self._draining.cancel()
            with suppress(asyncio.CancelledError):
                await self._draining

    def add(self, item: ReviewItem) -> asyncio.Future[Fate]:
        """Makes one item durable, with all that others add meanwhile.

        Returns:
            What becomes of it: ``queued`` when it is in Redis, ``deferred`` when it is on the spool, ``dropped``
            when the queue is full, or neither Redis nor the spool can keep it: then it is counted, not kept.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Fate] = loop.create_future()
        self._waiting.append((item, future))
        if not self._is_beginning and len(self._committing) < COMMITS_AT_ONCE:
            self._is_beginning = True
            self._committing.add(loop.create_task(self._commit()))
        return future

    async def _commit(self) -> None:
        self._is_beginning = False
        try:
            while self._waiting:
                await self._commit_group()
        finally:
            # In the step that found nothing waiting: what came before a later one would be waited for in vain.
            self._committing.remove(asyncio.current_task())  # type: ignore[arg-type]  # it runs in one

    async def _commit_group(self) -> None:
        size = len(next(_groups(item for item, _ in self._waiting)))
        group, self._waiting = self._waiting[:size], self._waiting[size:]
        try:
            fates = await self._keep([item for item, _ in group])
        except Exception:  # whatever is wrong with them: predictions go on
            logger.exception("%d review items are lost", len(group))
            fates = ["dropped"] * len(group)
        for (item, future), fate in zip(group, fates, strict=True):
            metrics.REVIEW_ITEMS.labels(item.model, item.reason, fate).inc()
            if not future.done():
                future.set_result(fate)

    async def _keep(self, items: Sequence[ReviewItem]) -> list[Fate]:
        if not self._redis_is_away:
            try:
                async with asyncio.timeout(KEEP_WITHIN_S):
                    kept = await add_items(self._redis, items, self._limit, self._policies(), self._budget)
            except (StoreUnavailableError, TimeoutError) as error:
                self._redis_is_away = True
                report(error)
            else:
                return ["queued" if one else "dropped" for one in kept]
        try:
            spooled = await asyncio.to_thread(self._spool.append, items)
        except OSError as error:
            self._losses.add(len(items), f"cannot be written ({error.strerror})")
            return ["dropped"] * len(items)
        self._losses.add(spooled.count(False), "is full")
        return ["deferred" if one else "dropped" for one in spooled]

    def _policies(self) -> dict[str, ReviewPolicy]:
        return {name: sampler.policy for name, sampler in self.samplers.items()}

    async def _drain_forever(self) -> None:
        while True:
            metrics.SPOOL_BYTES.set(self._spool.size)
            self._losses.say()
            try:
                if self._redis_is_away or self._spool.size:
                    await self._drain()
            except StoreUnavailableError as error:
                self._redis_is_away = True
                report(error)
            except Exception:
                logger.exception("the spool could not be drained; trying again")
            if is_cancelled():
                return
            await asyncio.sleep(DRAIN_EVERY_S)

    async def _drain(self) -> None:
        drained = 0
        # "deferred" was a promise: no limit keeps these out, even where the queue has filled up meanwhile.
        policies = {name: msgspec.structs.replace(policy, limits={}) for name, policy in self._policies().items()}
        async with guard():
            await self._redis.ping()
        with self._spool.drain() as items:
            for group in _groups(items):
                await add_items(self._redis, group, FOREVER, policies)
                drained += len(group)
        if self._redis_is_away or drained:
            logger.info("Redis answers again; %d review items came from the spool", drained)
        self._redis_is_away = False


class _Losses:
    """Says once a minute how many items are lost, and why: with a full disk that may be all of them."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._count = 0
        self._why = ""
        self._said_at = -math.inf

    def add(self, count: int, why: str) -> None:
        """Counts items that the spool did not take, and says why it did not."""
        self._count += count
        self._why = why
        self.say()

    def say(self) -> None:
        """Says what was not said yet, unless something was within the last minute."""
        if self._count and time.monotonic() - self._said_at >= SAY_EVERY_S:
            losses = "%d review items are lost: Redis is away, and the spool in %s %s"
            logger.error(losses, self._count, self._spool.folder, self._why)
            self._count, self._said_at = 0, time.monotonic()


def _groups(items: Iterable[ReviewItem]) -> Iterator[list[ReviewItem]]:
    """Yields items, a group at a time; one that is large by itself makes a group of its own."""
    group: list[ReviewItem] = []
    size = 0
    for item in items:
        own = len(item.inputs) + len(item.task)
        size += own
        if group and (len(group) == COMMIT_AT_MOST or size > COMMIT_BYTES):
            yield group
            group, size = [], own
        group.append(item)
    if group:
        yield group
