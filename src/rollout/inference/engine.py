"""The engine, where all protocols meet: assign, batch, run, decide, record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from rollout import metrics
from rollout.config import Settings
from rollout.errors import UnknownModelError
from rollout.inference.answering import answer, preview
from rollout.inference.follower import Follower, load_model, read_served
from rollout.inference.gauges import Gauges
from rollout.inference.pending_outcomes import pending_outcomes
from rollout.inference.reviewing import Pick, pick, review_item
from rollout.inference.rows import Answers, Rows
from rollout.inference.served_model import ServedModel
from rollout.inference.shadow import Shadow
from rollout.inference.watchdog import Watchdog
from rollout.review.log import ReviewLog
from rollout.review.predictions import Predictions
from rollout.review.spool import Spool
from rollout.review.webhook import Webhook
from rollout.store import Redis


class Engine:
    """Everything that a worker has in memory.

    Args:
        models: The models that it serves.
        redis: Connection.
        reviews: Takes the predictions that a person should look at.
        settings: With which further versions are loaded.

    Attributes:
        in_flight: Requests whose rows are being scored.
    """

    def __init__(
        self, models: Iterable[ServedModel], redis: Redis, reviews: ReviewLog, settings: Settings
    ) -> None:
        self.models = {model.name: model for model in models}
        self.redis = redis
        self.reviews = reviews
        self.in_flight = 0
        loop = asyncio.get_running_loop()
        self._shadows = {
            name: Shadow(model, lambda: self.in_flight, reviews.add) for name, model in self.models.items()
        }
        self._watchdog = Watchdog(self._hanging)
        self._background = [loop.create_task(_flush_forever())]
        self._followers = [Follower(model, redis, settings) for model in self.models.values()]
        self._background += [loop.create_task(follower.run()) for follower in self._followers]
        self._background += [loop.create_task(Gauges(model, redis).run()) for model in self.models.values()]
        self._predictions = Predictions(redis, {name: model.sampler for name, model in self.models.items()})
        self._background.append(loop.create_task(self._predictions.run()))
        if settings.webhook_url:
            hooks = [Webhook(redis, name, settings.webhook_url, settings.webhook_key()) for name in self.models]
            self._background += [loop.create_task(hook.run()) for hook in hooks]

    @classmethod
    async def load(cls, settings: Settings, redis: Redis) -> Engine:
        """Loads and warms up the versions that the splits in Redis name.

        Raises:
            BundleError: If there is nothing to serve, or a champion is refused.
            StoreUnavailableError: If Redis does not answer, and no split was ever seen here.
        """
        metrics.forget_dead_workers()
        splits = await read_served(redis, settings)
        models = [await load_model(name, split, settings, redis) for name, split in splits.items()]
        samplers = {model.name: model.sampler for model in models}
        reviews = ReviewLog(
            redis, Spool(settings.home / "spool", settings.spool_bytes), settings.max_reviews, samplers
        )
        reviews.start()
        return cls(models, redis, reviews, settings)

    async def close(self) -> None:
        """Makes the last review items durable and lets go of everything."""
        for task in self._background:
            task.cancel()
        await asyncio.wait(self._background)
        for shadow in self._shadows.values():
            shadow.close()
        await self.reviews.close()
        await self._predictions.close()
        metrics.flush_tallies()
        for model in self.models.values():
            for loaded in model.versions.values():
                loaded.close()
        await self.redis.aclose()
        self._watchdog.stop()

    @property
    def is_stuck(self) -> bool:
        """Whether a batch runs although nobody waits for it: the runtime of a challenger may hang."""
        models = self.models.values()
        versions = (loaded for model in models for loaded in model.versions.values())
        return (
            any(shadow.is_running for shadow in self._shadows.values())
            or any(model.has_left_a_thread for model in models)
            or not all(loaded.batcher.is_idle for loaded in versions)
        )

    def _hanging(self) -> str | None:
        """Says which champion hangs; a challenger that does costs only itself."""
        for model in tuple(self.models.values()):
            if model.champion.batcher.hangs():
                return f"the runtime of {model.champion.manifest.tag}"
        return None

    def model(self, name: str) -> ServedModel:
        """Returns a model that is being served.

        Raises:
            UnknownModelError: If there is none of this name.
        """
        try:
            return self.models[name]
        except KeyError:
            raise UnknownModelError(
                f"there is no model {name!r}; this service has {', '.join(sorted(self.models))}"
            ) from None

    async def predict(self, model: ServedModel, rows: Rows) -> Answers:
        """Scores the rows of one request, each by the version that its client is assigned.

        Raises:
            RolloutError: If any row is refused or fails: a request is answered whole or not at all.
        """
        snapshot = model.snapshot
        self.in_flight += 1
        try:
            if rows.preview is not None:
                return await preview(snapshot, rows, rows.preview)
            answers = await answer(snapshot, rows)
            if picks := pick(model.sampler, rows, answers):
                await self._review(model, rows, answers, picks)
        finally:
            self.in_flight -= 1
        # As soon as the answer is on its way.
        if snapshot.split.shadow:
            asyncio.get_running_loop().call_soon(self._shadows[model.name].offer, snapshot, rows, answers)
        if snapshot.trial is not None:
            asyncio.get_running_loop().call_soon(self._await_outcomes, model, rows, answers)
        return answers

    def _await_outcomes(self, model: ServedModel, rows: Rows, answers: Answers) -> None:
        self._predictions.offer(model.name, pending_outcomes(rows, answers))

    async def _review(self, model: ServedModel, rows: Rows, answers: Answers, picks: Sequence[Pick]) -> None:
        answers.fates.update((index, None) for index, _, _ in picks)
        items = {
            index: review_item(model, rows, answers, index, reason, pi)
            for index, reason, pi in picks
            if pi is not None
        }
        fates = await asyncio.gather(*(self.reviews.add(item) for item in items.values()))
        answers.fates.update(zip(items, fates, strict=True))


async def _flush_forever() -> None:
    while True:
        await asyncio.sleep(metrics.FLUSH_EVERY_S)
        metrics.flush_tallies()
