"""The engine, where all doors meet: assign, batch, run, decide, record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from rollout import metrics
from rollout.bundle.manifest import require_interchangeable
from rollout.bundle.parity import take
from rollout.bundle.store import bundle_names
from rollout.clock import utc_now
from rollout.config import Settings
from rollout.errors import BundleError, RolloutError, StoreUnavailableError, UnknownModelError
from rollout.inference.rows import Answers, Rows, to_answer
from rollout.inference.version import LoadedVersion
from rollout.inference.watchdog import Watchdog
from rollout.review.item import ReviewItem, item_id
from rollout.review.log import ReviewLog
from rollout.review.spool import Spool
from rollout.routing.assignment import Arm, Assignment, assign
from rollout.routing.split import Split
from rollout.routing.splits import read_split
from rollout.store import Redis

FOLLOW_EVERY_S = 1.0

logger = logging.getLogger(__name__)


async def read_served(redis: Redis) -> dict[str, Split]:
    """Returns the split of every model that has bundles and a split.

    Raises:
        BundleError: If there is none.
        StoreUnavailableError: If Redis does not answer.
    """
    found = {name: await read_split(redis, name) for name in sorted(bundle_names())}
    splits = {name: split for name, split in found.items() if split is not None}
    if not splits:
        raise BundleError(
            f"there is nothing to serve; models with bundles: {', '.join(found) or 'none'}; with a split: none; "
            "`rollout build` makes bundles, `rollout split set MODEL --champion VERSION` makes a split"
        )
    return splits


class ServedModel:
    """A model with its split and the versions that are in memory.

    Args:
        name: The model.
        split: Its split.
        versions: The loaded versions that the split names.

    Raises:
        BundleError: If they do not take the same inputs and give the same labels.
    """

    def __init__(self, name: str, split: Split, versions: Iterable[LoadedVersion]) -> None:
        self.name = name
        self.versions: dict[str, LoadedVersion] = {}
        self.latency = metrics.Tally(metrics.LATENCY.labels(name))
        self.apply(split, versions)

    def apply(self, split: Split, versions: Iterable[LoadedVersion]) -> None:
        """Switches to a split. Versions that it no longer names stay loaded: going back to them is instant.

        Raises:
            BundleError: If a version is not interchangeable with those in memory; then nothing changes.
        """
        together = self.versions | {loaded.version: loaded for loaded in versions}
        champion = together[split.champion]
        for loaded in together.values():
            require_interchangeable(champion.manifest, loaded.manifest)
        self.split, self.versions, self.champion = split, together, champion
        self.schema, self.task = champion.schema, champion.manifest.task
        self.variants = {version: loaded.variant for version, loaded in together.items()}


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
        self._settings = settings
        self.in_flight = 0
        self._refused: dict[str, int] = {}
        loop = asyncio.get_running_loop()
        self._watchdog = Watchdog(self._hanging)
        self._background = [loop.create_task(_flush_forever()), loop.create_task(self._follow_splits())]

    @classmethod
    async def load(cls, settings: Settings, redis: Redis) -> Engine:
        """Loads and warms up the versions that the splits in Redis name.

        Raises:
            BundleError: If there is nothing to serve, or a champion is refused.
            StoreUnavailableError: If Redis does not answer.
        """
        models = []
        for name, split in (await read_served(redis)).items():
            models.append(await _load_model(name, split, settings))
        reviews = ReviewLog(redis, Spool(settings.home / "spool", settings.spool_bytes), settings.max_reviews)
        reviews.start()
        return cls(models, redis, reviews, settings)

    async def close(self) -> None:
        """Makes the last review items durable and lets go of everything."""
        for task in self._background:
            task.cancel()
        await self.reviews.close()
        metrics.flush_tallies()
        for model in self.models.values():
            for loaded in model.versions.values():
                loaded.close()
        await self.redis.aclose()
        self._watchdog.stop()

    def _hanging(self) -> str | None:
        for model in tuple(self.models.values()):
            for loaded in tuple(model.versions.values()):
                if loaded.batcher.hangs():
                    return f"the runtime of {loaded.manifest.tag}"
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
        split = model.split
        assignments = _assign_all(split, rows.client_ids)
        groups = _by_arm(assignments)
        self.in_flight += 1
        try:
            futures = [
                model.versions[version].batcher.submit(
                    rows.arrays if len(groups) == 1 else take(rows.arrays, np.array(indexes)), rows.deadline
                )
                for _, version, indexes in groups
            ]
            decisions: list[Any] = [None] * len(rows.client_ids)
            waited = ran = 0.0
            for (_, _, indexes), future in zip(groups, futures, strict=True):
                done = await future
                for index, result in zip(indexes, done.results, strict=True):
                    if isinstance(result, RolloutError):
                        raise result if len(decisions) == 1 else _of_instance(result, index)
                    decisions[index] = result
                waited, ran = max(waited, done.waited), max(ran, done.ran)
            for arm, version, indexes in groups:
                model.versions[version].count(arm, [decisions[index] for index in indexes])
            answers = Answers(assignments, model.variants, decisions, {}, waited, ran)
            uncertain = [index for index, (_, _, needs_review) in enumerate(decisions) if needs_review]
            if uncertain:
                now = utc_now("milliseconds")
                items = [_review_item(model, split, rows, answers, index, now) for index in uncertain]
                fates = await asyncio.gather(*(self.reviews.add(item) for item in items))
                answers.fates.update(zip(uncertain, fates, strict=True))
            return answers
        finally:
            self.in_flight -= 1

    async def _follow_splits(self) -> None:
        """Applies changed splits; with Redis gone or a version refused, the last split holds."""
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            for model in self.models.values():
                try:
                    await self._follow(model)
                except StoreUnavailableError:
                    break
                except Exception:
                    logger.exception("the split of %s could not be applied; trying again", model.name)

    async def _follow(self, model: ServedModel) -> None:
        split = await read_split(self.redis, model.name)
        if split is None or split.revision in (model.split.revision, self._refused.get(model.name)):
            return
        try:
            missing = [version for version in split.versions if version not in model.versions]
            model.apply(split, await _load(model.name, missing, self._settings))
        except BundleError as error:
            self._refused[model.name] = split.revision
            logger.error("%s stays at revision %d: %s", model.name, model.split.revision, error.detail)
        else:
            logger.info("%s is at revision %d: %s", model.name, split.revision, ", ".join(split.versions))


async def _load_model(name: str, split: Split, settings: Settings) -> ServedModel:
    """Loads a model as its split says; the clients of a challenger that is refused get the champion."""
    model = ServedModel(name, split.without_trial(), await _load(name, [split.champion], settings))
    if split.challenger is not None:
        try:
            model.apply(split, await _load(name, [split.challenger], settings))
        except BundleError as error:
            logger.error("%s; its clients get the champion, %s", error.detail, split.champion)
    return model


async def _load(name: str, versions: Iterable[str], settings: Settings) -> list[LoadedVersion]:
    return [await asyncio.to_thread(LoadedVersion, name, version, settings) for version in versions]


async def _flush_forever() -> None:
    while True:
        await asyncio.sleep(metrics.FLUSH_EVERY_S)
        metrics.flush_tallies()


def _assign_all(split: Split, client_ids: Sequence[str]) -> list[Assignment]:
    if client_ids.count(client_ids[0]) == len(client_ids):
        return [assign(split, client_ids[0])] * len(client_ids)
    return [assign(split, client_id) for client_id in client_ids]


def _by_arm(assignments: Sequence[Assignment]) -> list[tuple[Arm, str, Sequence[int]]]:
    """Returns arm, version and indexes of the rows that go together."""
    arm, version, _ = assignments[0]
    if all(assignment is assignments[0] for assignment in assignments):
        return [(arm, version, range(len(assignments)))]
    groups: dict[Arm, tuple[Arm, str, list[int]]] = {}
    for index, (arm, version, _) in enumerate(assignments):
        groups.setdefault(arm, (arm, version, []))[2].append(index)
    return list(groups.values())


def _review_item(
    model: ServedModel, split: Split, rows: Rows, answers: Answers, index: int, now: str
) -> ReviewItem:
    client_id, key, assignment = rows.client_ids[index], rows.keys[index], answers.assignments[index]
    inputs = msgspec.json.encode(rows.sent[index])
    return ReviewItem(
        id=item_id(client_id, key, inputs),
        model=model.name,
        client_id=client_id,
        key=key,
        reason="low_confidence",
        pi=1.0,
        at=now,
        arm=assignment.arm,
        version=assignment.version,
        variant=answers.variants[assignment.version],
        revision=split.revision,
        threshold=model.versions[assignment.version].manifest.task.review_limit,
        inputs=msgspec.Raw(inputs),
        **to_answer(model.task, answers.decisions[index])._asdict(),
    )


def _of_instance(error: RolloutError, index: int) -> RolloutError:
    return type(error)(f"instance {index}: {error.detail}", headers=error.headers)
