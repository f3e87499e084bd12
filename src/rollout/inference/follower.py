"""Following the split: what is new is loaded beside what serves, then the model switches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from rollout import metrics
from rollout.bundle.store import changed_lately, changed_since
from rollout.config import Settings
from rollout.errors import BundleError, MissingBundleError, StoredValueError, StoreUnavailableError
from rollout.inference.own_counts import OwnCounts
from rollout.inference.served_model import ServedModel
from rollout.inference.version import LoadedVersion
from rollout.review.policy import cache_policy, cached_policy, read_policy
from rollout.routing.assignment import Arm
from rollout.routing.split import Split
from rollout.routing.split_cache import cache_split, forget_split
from rollout.routing.splits import read_latest
from rollout.routing.traffic import Worker, add_traffic
from rollout.store import Redis, is_cancelled, report

FOLLOW_EVERY_S = 0.5
# So long, in seconds, a start waits for each version beside the champion.
PATIENCE_S = 30.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


def load_version(model: str, version: str, settings: Settings) -> LoadedVersion:
    """Loads a version; whatever goes wrong with it is a reason to refuse it.

    Raises:
        MissingBundleError: If it is not here, or not whole yet.
        BundleError: If it is refused.
    """
    try:
        return LoadedVersion(model, version, settings)
    except MissingBundleError:
        raise
    except BundleError as error:
        if not changed_lately(f"{model}:{version}"):
            raise
        raise MissingBundleError(
            f"{error.detail}; it was written to moments ago and may not be whole yet"
        ) from None
    except Exception as error:
        raise BundleError(f"{model}:{version} cannot be loaded: {type(error).__name__}: {error}") from error


async def load_model(name: str, split: Split, settings: Settings, redis: Redis) -> ServedModel:
    """Loads a model as its split says; until its challenger can be served, the clients get the champion.

    A version that takes long to load, or for ever, is left to the follower.

    Raises:
        BundleError: If the champion is refused.
    """
    champion = await asyncio.to_thread(load_version, name, split.champion, settings)
    model = ServedModel(name, split, [champion], settings)
    try:
        model.sampler.policy = await read_policy(redis, name)
    except StoreUnavailableError:
        model.sampler.policy = cached_policy(settings.home, name)
    # The whole split, since with Redis gone at the next start its challenger may be there.
    await _keep(settings.home, cache_split, name, split)
    await _keep(settings.home, cache_policy, name, model.sampler.policy)
    loaded = []
    for version in split.kept[1:]:
        load = model.loading[version] = _begin_to_load(name, version, settings)
        await asyncio.wait({load}, timeout=PATIENCE_S)
        if not load.done():
            logger.warning("%s:%s takes long to load: its clients get the champion until it is", name, version)
            break
        del model.loading[version]
        with contextlib.suppress(BundleError):  # the follower tries again, and says why
            loaded.append(load.result())
    if {version.version for version in loaded} >= set(split.versions[1:]):
        with contextlib.suppress(BundleError):
            model.apply(split, loaded)
    return model


def _begin_to_load(model: str, version: str, settings: Settings) -> asyncio.Task[LoadedVersion]:
    return asyncio.create_task(asyncio.to_thread(load_version, model, version, settings))


class Refusal(NamedTuple):
    """What was refused, and when: it is as it was for as long as nobody writes to one of the bundles.

    Attributes:
        revision: Revision of the split.
        tags: The bundles that it serves.
        since: When they began to be loaded, in seconds since 1970.
    """

    revision: int
    tags: tuple[str, ...]
    since: float

    def holds(self, split: Split) -> bool:
        """Whether trying ``split`` would end as it did."""
        return self.revision == split.revision and not any(changed_since(tag, self.since) for tag in self.tags)


class Follower:
    """Keeps one model at the split in Redis, and tells Redis what it answered.

    Args:
        model: The model.
        redis: Connection.
        settings: With which further versions are loaded.
        leave: Called when the split is removed; then it ends.
    """

    def __init__(
        self, model: ServedModel, redis: Redis, settings: Settings, leave: Callable[[], None] = lambda: None
    ) -> None:
        self._model = model
        self._leave = leave
        self._is_removed = False
        self.redis = redis
        self._settings = settings
        self._loading = model.loading
        self._refusal: Refusal | None = None
        self._began = 0.0
        self._trouble = ""
        self._untold: Counter[tuple[Arm, str, str]] = Counter()
        self._own_counts = OwnCounts(model.name)
        self._of_no_arm: Counter[str] = Counter()
        self._id = f"{socket.gethostname()}:{os.getpid()}"

    async def run(self) -> None:
        """Follows until the split is removed; with Redis gone, or a version refused, the last split holds."""
        while not is_cancelled() and not self._is_removed:
            for step in (self._follow, self._tell, self._follow_policy):
                try:
                    await step()
                except StoredValueError as error:  # the other steps do not need it
                    report(error)
                except StoreUnavailableError as error:
                    report(error)
                    break
                except Exception:
                    logger.exception("the split of %s could not be followed; trying again", self._model.name)
            self._show_breaker()
            if loading := [task for task in self._loading.values() if not task.done()]:
                await asyncio.wait(loading, timeout=FOLLOW_EVERY_S)
            else:
                await asyncio.sleep(FOLLOW_EVERY_S)

    async def _follow(self) -> None:
        model = self._model
        model.retire()
        split = await read_latest(self.redis, model.name)
        if split is not None and split.removed:
            self._is_removed = True
            await _keep(self._settings.home, forget_split, model.name, split)
            self._leave()
            return
        if split is not None:
            metrics.LATEST.labels(model.name).set(split.revision)
            metrics.SHARE.labels(model.name).set(split.share)
        self._drop_unwanted(split or model.split)
        if split is None or self._is_followed(split):
            return
        if self._refusal is not None and await asyncio.to_thread(self._refusal.holds, split):
            return
        try:
            versions = self._loaded(split)
            if versions is None:
                return
            model.apply(split, versions)
        except BundleError as error:
            waits = isinstance(error, MissingBundleError)
            tags = tuple(f"{model.name}:{version}" for version in split.versions)
            self._refusal = None if waits else Refusal(split.revision, tags, self._began)
            self._say(error.detail, split, waits=waits)
        else:
            self._trouble, self._refusal = "", None
            logger.info("%s is at revision %d: %s", model.name, split.revision, ", ".join(split.versions))
            await _keep(self._settings.home, cache_split, model.name, split)

    def _is_followed(self, split: Split) -> bool:
        return split == self._model.split and not set(self._model.missing(split)).intersection(split.versions)

    def _say(self, trouble: str, split: Split, *, waits: bool) -> None:
        """Says once why a split is not served as it is."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        model = self._model
        more = "; it follows as soon as the bundle is here" if waits else ""
        if split.revision == model.split.revision:  # since the start
            logger.error("%s; its clients get the champion, %s%s", trouble, split.champion, more)
        else:
            logger.error("%s stays at revision %d: %s%s", model.name, model.split.revision, trouble, more)

    def _drop_unwanted(self, split: Split) -> None:
        """Lets go of what was loaded for a split that has been replaced meanwhile."""
        for version, task in list(self._loading.items()):
            if version not in split.kept and task.done():
                del self._loading[version]
                if task.exception() is None:
                    task.result().close()

    def _loaded(self, split: Split) -> list[LoadedVersion] | None:
        """Returns the versions that are new with a split, or nothing while one that it serves is being loaded.

        Raises:
            MissingBundleError: If the bundle of one that it serves is not here; what is loaded waits for it.
            BundleError: If one that it serves is refused.
        """
        missing = self._model.missing(split)
        if not self._loading:
            self._began = time.time()
        for version in missing:
            if version not in self._loading:
                self._loading[version] = _begin_to_load(self._model.name, version, self._settings)
        if not all(self._loading[version].done() for version in missing):
            return None
        for version in set(missing).intersection(split.versions):
            if isinstance(error := self._loading[version].exception(), MissingBundleError):
                del self._loading[version]
                raise error
        done = {version: self._loading.pop(version) for version in missing}
        for version in split.versions:
            if version in done and (error := done[version].exception()) is not None:
                raise error
        return [task.result() for task in done.values() if task.exception() is None]

    async def _follow_policy(self) -> None:
        sampler = self._model.sampler
        if await sampler.follow(self.redis):
            logger.info("the review policy of %s is another one: %s", self._model.name, sampler.policy)
            await _keep(self._settings.home, cache_policy, self._model.name, sampler.policy)

    def _show_breaker(self) -> None:
        trial = self._model.snapshot.trial
        is_open = trial is not None and trial.breaker.state != "closed"
        metrics.BREAKER.labels(self._model.name).set(is_open)

    async def _tell(self) -> None:
        model = self._model
        snapshot = model.snapshot
        for counts in (counts for each in model.snapshots for counts in each.counts.values()):
            self._untold.update(dict(counts.take()))
        self._of_no_arm.update(dict(self._own_counts.take()))
        worker = Worker(
            id=self._id,
            revision=snapshot.split.revision,
            variants={version: loaded.variant for version, loaded in model.versions.items()},
            breaker="closed" if snapshot.trial is None else snapshot.trial.breaker.state,
            refused=self._trouble,
        )
        await add_traffic(self.redis, model.name, self._untold, worker, self._of_no_arm)
        self._untold.clear()
        self._of_no_arm.clear()


async def _keep(home: Path, keep: Callable[[Path, str, T], None], model: str, what: T) -> None:
    """Writes down what holds at a start without Redis."""
    try:
        await asyncio.to_thread(keep, home, model, what)
    except OSError as error:
        logger.warning("split and review policy of %s cannot be kept on disk: %s", model, error)
