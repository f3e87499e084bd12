"""What a worker runs for one model, from the first split to the last request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from rollout import metrics
from rollout.config import Settings
from rollout.errors import StoreUnavailableError
from rollout.inference.controller import Controller
from rollout.inference.drift_watch import DriftWatch
from rollout.inference.follower import Follower
from rollout.inference.gauges import Gauges
from rollout.inference.live_sketches import LiveSketches
from rollout.inference.registry_aliases import RegistryAliases
from rollout.inference.served_model import ServedModel
from rollout.inference.shadow import Shadow
from rollout.mlflow_server import registry_server
from rollout.review.item import ReviewItem
from rollout.review.log import ReviewLog
from rollout.review.others import keep_other
from rollout.review.outbox import Decisions
from rollout.routing.outbox import Acts
from rollout.store import Redis
from rollout.webhook import Webhook

# How long what is left of a model waits for its last batches, in seconds.
LEAVE_WITHIN_S = 30.0


class ModelRuntime:
    """Follows a model's split and its trial, scores in its shadow, shows its figures, delivers its decisions.

    Args:
        model: The model.
        redis: Connection.
        reviews: Takes what the shadow disagrees about.
        settings: With which further versions are loaded.
        in_flight: Returns how many requests are being answered.
        leave: Called when the split is removed.
    """

    def __init__(
        self,
        model: ServedModel,
        redis: Redis,
        reviews: ReviewLog,
        settings: Settings,
        in_flight: Callable[[], int],
        leave: Callable[[], None],
    ) -> None:
        self.model = model

        async def keep(item: ReviewItem) -> None:
            with suppress(StoreUnavailableError):
                await keep_other(redis, item, model.sampler.policy.retention_s)

        self.shadow = Shadow(model, in_flight, reviews.add, keep)
        loop = asyncio.get_running_loop()
        self.follower = Follower(model, redis, settings, leave)
        controller = Controller(redis, model.name, settings, lambda: model.task)
        self._sketches = LiveSketches(model, redis)
        works = [self.follower.run(), Gauges(model, redis).run(), controller.run()]
        works += [self._sketches.run(), DriftWatch(redis, model).run()]
        if settings.webhook_url:
            to = (settings.webhook_url, settings.webhook_key())
            outboxes = (Decisions(redis, model.name), Acts(redis, model.name))
            works += [Webhook(redis, outbox, *to).run() for outbox in outboxes]
        if (server := registry_server()) is not None:
            works.append(RegistryAliases(redis, model.name, server).run())
        self._tasks = [loop.create_task(work) for work in works]

    @property
    def is_stuck(self) -> bool:
        """Whether a batch runs although nothing waits for it: the runtime of a challenger may hang."""
        return self.shadow.is_running or self.model.has_left_a_thread or not self._is_idle

    @property
    def _is_idle(self) -> bool:
        return all(loaded.batcher.is_idle for loaded in self.model.versions.values())

    async def close(self) -> None:
        """Ends what runs, and lets go of the versions."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._sketches.close()
        self.shadow.close()
        metrics.flush_tallies()
        for loaded in self.model.versions.values():
            loaded.close()

    async def leave(self) -> None:
        """Ends likewise after the last requests; should the model come back, its gauges begin anew."""
        give_up = time.monotonic() + LEAVE_WITHIN_S
        while not self._is_idle and time.monotonic() < give_up:  # noqa: ASYNC110  a batcher has no event for it
            await asyncio.sleep(0.05)
        await self.close()
        name = self.model.name
        for gauge in (metrics.REVISION, metrics.LATEST, metrics.SHARE, metrics.BREAKER):
            gauge.labels(name).set(0)
        for loaded in self.model.versions.values():
            metrics.VARIANT.labels(name, loaded.version, loaded.variant).set(0)
