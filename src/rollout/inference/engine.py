"""The engine, where all protocols meet: assign, batch, run, decide, record."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence

from rollout import metrics
from rollout.config import Settings
from rollout.errors import UnknownModelError
from rollout.explain.processes import Answer, Explainers, Task
from rollout.inference.answering import OnTrial, answer, answer_at_once, begin_trial, end_trial, preview
from rollout.inference.batcher import Ran
from rollout.inference.discovery import Discovery
from rollout.inference.follower import load_model
from rollout.inference.model_runtime import ModelRuntime
from rollout.inference.pending_outcomes import pending_outcomes
from rollout.inference.reviewing import Pick, pick, review_items
from rollout.inference.rows import Answers, Rows
from rollout.inference.served_model import ServedModel
from rollout.inference.served_splits import read_served
from rollout.inference.snapshot import ServingSnapshot
from rollout.inference.watchdog import Watchdog
from rollout.review.log import ReviewLog
from rollout.review.predictions import Predictions
from rollout.review.queue import Budget
from rollout.review.spool import Spool
from rollout.store import Redis

logger = logging.getLogger(__name__)


class Engine:
    """Everything that a worker has in memory.

    Args:
        models: The models that it serves.
        redis: Connection.
        reviews: Takes the predictions that a person should look at.
        settings: With which further versions are loaded.

    Attributes:
        in_flight: Requests whose rows are being scored.
        explainers: The processes in which predictions are explained.
    """

    def __init__(
        self, models: Iterable[ServedModel], redis: Redis, reviews: ReviewLog, settings: Settings
    ) -> None:
        self.models: dict[str, ServedModel] = {}
        self.redis = redis
        self.reviews = reviews
        self.in_flight = 0
        self.explainers = Explainers(settings.explain_at_once, settings.explain_timeout_s, settings.processes)
        self._settings = settings
        self._runtimes: dict[str, ModelRuntime] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._watchdog = Watchdog(self._hanging)
        self._predictions = Predictions(redis, reviews.samplers)
        for model in models:
            self._add(model)
        works = (
            _flush_forever(),
            self._predictions.run(),
            Discovery(self.models, redis, settings, self._add).run(),
        )
        self._background = [asyncio.get_running_loop().create_task(work) for work in works]

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
        reviews = ReviewLog(
            redis,
            Spool(settings.home / "spool", settings.spool_bytes),
            settings.max_reviews,
            budget=Budget(settings.max_review_bytes, settings.max_client_review_bytes),
        )
        reviews.start()
        return cls(models, redis, reviews, settings)

    async def close(self) -> None:
        """Makes the last review items durable and lets go of everything."""
        for task in self._background:
            task.cancel()
        await asyncio.wait(self._background)
        await asyncio.gather(*(runtime.close() for runtime in self._runtimes.values()), *self._leaving)
        await self.reviews.close()
        await self._predictions.close()
        metrics.flush_tallies()
        await self.redis.aclose()
        self._watchdog.stop()

    @property
    def is_stuck(self) -> bool:
        """Whether a batch runs although nothing waits for it: the runtime of a challenger may hang."""
        return any(runtime.is_stuck for runtime in self._runtimes.values())

    def _add(self, model: ServedModel) -> None:
        """Begins to serve a model."""
        name = model.name
        self.reviews.samplers[name] = model.sampler
        self._runtimes[name] = ModelRuntime(
            model, self.redis, self.reviews, self._settings, lambda: self.in_flight, lambda: self._leave(name)
        )
        self.models[name] = model
        logger.info("%s is served", name)

    def _leave(self, name: str) -> None:
        """Serves a model no more: its split was removed."""
        del self.models[name]
        logger.info("%s has no split any more and is not served", name)
        task = asyncio.get_running_loop().create_task(self._runtimes.pop(name).leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

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
                f"there is no model {name!r}; this service has {', '.join(sorted(self.models)) or 'none'}"
            ) from None

    async def predict(self, model: ServedModel, rows: Rows) -> Answers:
        """Scores the rows of one request, each by the version that its client is assigned.

        Raises:
            RolloutError: If any row is refused or fails: a request is answered whole or not at all.
        """
        answers, picks = await self.score(model, rows)
        if picks:
            await self.review(model, rows, answers, picks)
        return answers

    async def score(
        self, model: ServedModel, rows: Rows, asked: asyncio.Future[Ran] | None = None
    ) -> tuple[Answers, Sequence[Pick]]:
        """Scores rows, and says which of them are to be reviewed before they are answered.

        Args:
            model: The model.
            rows: Of one request or of several.
            asked: What the challenger makes of them, as ``end_trial`` returns it.

        Raises:
            RolloutError: If any row is refused or fails; of several requests, those with such rows are taken out.
        """
        snapshot = model.snapshot
        self.in_flight += 1
        try:
            if rows.preview is not None:
                return await preview(snapshot, rows, rows.preview), ()
            answers = await answer(snapshot, rows, asked)
        finally:
            self.in_flight -= 1
        return answers, self._picks(model, snapshot, rows, answers)

    def score_at_once(self, model: ServedModel, rows: Rows) -> tuple[Answers, Sequence[Pick]] | None:
        """Does so without waiting for anything; ``None`` where the champion cannot answer quickly now."""
        snapshot = model.snapshot
        answers = answer_at_once(snapshot, rows)
        return None if answers is None else (answers, self._picks(model, snapshot, rows, answers))

    def begin_trial(self, model: ServedModel, rows: Rows) -> OnTrial | None:
        """Has the challenger score rows that are its own, in a thread; ``None`` where it cannot quickly now."""
        return begin_trial(model.snapshot, rows)

    def end_trial(
        self, model: ServedModel, begun: OnTrial
    ) -> tuple[Answers, Sequence[Pick]] | asyncio.Future[Ran]:
        """Does with the rows what ``score_at_once`` does; where they take longer, ``score`` goes on with them."""
        answers = end_trial(begun)
        if isinstance(answers, asyncio.Future):
            return answers
        return answers, self._picks(model, begun.snapshot, begun.rows, answers)

    def _picks(
        self, model: ServedModel, snapshot: ServingSnapshot, rows: Rows, answers: Answers
    ) -> Sequence[Pick]:
        """Says which rows are to be reviewed, and offers all of them to whoever looks at them later."""
        picks = pick(model.sampler, rows, answers.decisions.needs_review)
        answers.fates.update((index, None) for index, _, _ in picks)
        # As soon as the answer is on its way.
        if snapshot.split.shadow and snapshot.challenger is not None:
            asyncio.get_running_loop().call_soon(self._offer_to_shadow, model, snapshot, rows, answers)
        if snapshot.split.challenger is not None:
            asyncio.get_running_loop().call_soon(self._await_outcomes, model, rows, answers)
        return picks

    def _offer_to_shadow(
        self, model: ServedModel, snapshot: ServingSnapshot, rows: Rows, answers: Answers
    ) -> None:
        if runtime := self._runtimes.get(model.name):
            runtime.shadow.offer(snapshot, rows, answers)

    def _await_outcomes(self, model: ServedModel, rows: Rows, answers: Answers) -> None:
        self._predictions.offer(model.name, pending_outcomes(rows, answers))

    async def explain(
        self, task: Task, timeout_s: float = math.inf, is_gone: Callable[[], bool] = lambda: False
    ) -> Answer:
        """Explains a prediction in a process of its own; see ``Explainers.run``.

        Raises:
            RolloutError: If it is refused, takes too long or fails.
        """
        started = time.perf_counter()
        answer = await self.explainers.run(task, timeout_s, is_gone)
        model = answer.explanation.model
        metrics.EXPLANATION.labels(model).observe(time.perf_counter() - started)
        return answer

    async def review(self, model: ServedModel, rows: Rows, answers: Answers, picks: Sequence[Pick]) -> None:
        """Stores the review items of rows, and notes in the answers what became of them."""
        self.in_flight += 1
        try:
            items = await review_items(model, rows, answers, picks)
            # Each step that waits comes after a turn of the event loop: there is no task for an item.
            fates = [await fate for fate in [self.reviews.add(item) for item in items.values()]]
        finally:
            self.in_flight -= 1
        answers.fates.update(zip(items, fates, strict=True))


async def _flush_forever() -> None:
    while True:
        await asyncio.sleep(metrics.FLUSH_EVERY_S)
        metrics.flush_tallies()
