"""The engine, where all doors meet: assign, batch, run, decide, record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

import msgspec

from rollout import metrics
from rollout.bundle.manifest import require_interchangeable
from rollout.bundle.store import bundle_names
from rollout.clock import utc_now
from rollout.config import Settings
from rollout.errors import BundleError, RolloutError, StoreUnavailableError, UnknownModelError
from rollout.inference.row import Decision, Prediction, Row, make_prediction
from rollout.inference.version import LoadedVersion
from rollout.review.item import ReviewItem, item_id
from rollout.review.log import Fate, ReviewLog
from rollout.review.spool import Spool
from rollout.routing.assignment import assign
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
        self.split, self.versions, self.champion, self.schema = split, together, champion, champion.schema


class Engine:
    """Everything that a worker has in memory.

    Args:
        models: The models that it serves.
        redis: Connection.
        reviews: Takes the predictions that a person should look at.
        settings: With which further versions are loaded.
    """

    def __init__(
        self, models: Iterable[ServedModel], redis: Redis, reviews: ReviewLog, settings: Settings
    ) -> None:
        self.models = {model.name: model for model in models}
        self.redis = redis
        self.reviews = reviews
        self._settings = settings
        self._refused: dict[str, int] = {}
        loop = asyncio.get_running_loop()
        self._background = [loop.create_task(_flush_forever()), loop.create_task(self._follow_splits())]

    @classmethod
    async def load(cls, settings: Settings, redis: Redis) -> Engine:
        """Loads and warms up the versions that the splits in Redis name.

        Raises:
            BundleError: If there is nothing to serve, or a bundle is refused.
            StoreUnavailableError: If Redis does not answer.
        """
        models = []
        for name, split in (await read_served(redis)).items():
            models.append(ServedModel(name, split, await _load(name, split.versions, settings)))
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

    async def predict(self, model: ServedModel, rows: Sequence[Row]) -> list[Prediction]:
        """Scores the rows of one request, each by the version that its client is assigned.

        Returns:
            The predictions, in the order of the rows.

        Raises:
            RolloutError: If any row is refused or fails: a request is answered whole or not at all.
        """
        split = model.split
        for row in rows:
            row.assignment = assign(split, row.client_id)
        decisions = await self._decide(model, rows)
        uncertain = [index for index, decision in enumerate(decisions) if decision.needs_review]
        fates = await self._review(model, split, rows, decisions, uncertain) if uncertain else {}
        return [
            make_prediction(
                model.name,
                model.versions[row.assignment.version].variant,
                row,
                decision.answer,
                fates.get(index),
            )
            for index, (row, decision) in enumerate(zip(rows, decisions, strict=True))
        ]

    async def _decide(self, model: ServedModel, rows: Sequence[Row]) -> list[Decision]:
        """Scores each row by its version; the versions work side by side."""
        if len(rows) == 1:
            (outcome,) = await model.versions[rows[0].assignment.version].batcher.submit(rows)
            if isinstance(outcome, RolloutError):
                raise outcome
            return [outcome]
        indexes_by_version: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            indexes_by_version.setdefault(row.assignment.version, []).append(index)
        futures = [
            model.versions[version].batcher.submit([rows[index] for index in indexes])
            for version, indexes in indexes_by_version.items()
        ]
        decisions: dict[int, Decision] = {}
        for future, indexes in zip(futures, indexes_by_version.values(), strict=True):
            for index, outcome in zip(indexes, await future, strict=True):
                if isinstance(outcome, RolloutError):
                    raise _of_instance(outcome, index)
                decisions[index] = outcome
        return [decisions[index] for index in range(len(rows))]

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

    async def _review(
        self,
        model: ServedModel,
        split: Split,
        rows: Sequence[Row],
        decisions: Sequence[Decision],
        uncertain: Sequence[int],
    ) -> dict[int, Fate | None]:
        """Sends the uncertain rows to review; returns what became of each, by index."""
        now = utc_now("milliseconds")
        items = [_review_item(model, split, rows[index], decisions[index], now) for index in uncertain]
        fates = await asyncio.gather(*(self.reviews.add(item) for item in items))
        return dict(zip(uncertain, fates, strict=True))


async def _load(name: str, versions: Iterable[str], settings: Settings) -> list[LoadedVersion]:
    return [await asyncio.to_thread(LoadedVersion, name, version, settings) for version in versions]


async def _flush_forever() -> None:
    while True:
        await asyncio.sleep(metrics.FLUSH_EVERY_S)
        metrics.flush_tallies()


def _review_item(model: ServedModel, split: Split, row: Row, decision: Decision, now: str) -> ReviewItem:
    loaded = model.versions[row.assignment.version]
    inputs = msgspec.json.encode(row.sent)
    answer, task = decision.answer, loaded.manifest.task
    return ReviewItem(
        id=item_id(row.client_id, row.key, inputs),
        model=model.name,
        client_id=row.client_id,
        key=row.key,
        reason="low_confidence",
        pi=1.0,
        at=now,
        arm=row.assignment.arm,
        version=loaded.version,
        variant=loaded.variant,
        revision=split.revision,
        threshold=task.review_limit,
        inputs=msgspec.Raw(inputs),
        **{name: getattr(answer, name) for name in answer.__struct_fields__},
    )


def _of_instance(error: RolloutError, index: int) -> RolloutError:
    return type(error)(f"instance {index}: {error.detail}", headers=error.headers)
