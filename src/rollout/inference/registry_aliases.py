"""The aliases `champion` and `challenger` in MLflow's registry follow the split, whoever changes it."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from rollout import metrics
from rollout.errors import StoreUnavailableError
from rollout.inference.mlflow_registry import MlflowRegistry, RegistryError
from rollout.keys import Keys
from rollout.lease import Lease
from rollout.mlflow_server import TRACKING, MlflowServer
from rollout.repeating import repeat
from rollout.routing.split import Split
from rollout.routing.splits import read_split
from rollout.store import Redis

POLL_S = 1.0
LOCK_S = 30.0
# The registry is asked again after this long although the split is the same: somebody may have changed it there.
LOOK_EVERY_S = 60.0
RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
FATES = ("set", "failed")

logger = logging.getLogger(__name__)


class RegistryAliases:
    """Keeps the aliases of one registered model as its split says; of all workers, one does.

    Nothing of it is kept: the split and the registry are compared. No change of a split waits for that.

    Args:
        redis: Connection.
        model: The model.
        server: Where the registry is.
    """

    def __init__(self, redis: Redis, model: str, server: MlflowServer) -> None:
        self._redis = redis
        self._model = model
        self._registry = MlflowRegistry(server)
        self._lease = Lease(redis, Keys(model).registry_lock, LOCK_S)
        self._looked = (0, 0.0)  # at which revision, and when
        self._again, self._failures = 0.0, 0
        self._said = ""
        for fate in FATES:  # a series that begins with its first increment is not seen to rise
            metrics.ALIASES.labels(model, fate)

    async def run(self) -> None:
        """Follows the split for ever."""
        try:
            await repeat(self._step, POLL_S, f"the aliases of {self._model} could not be looked after")
        finally:
            with suppress(StoreUnavailableError):
                await self._lease.release()

    async def _step(self) -> None:
        if await self._lease.hold():
            await self._follow()

    async def _follow(self) -> None:
        """Compares the split with the registry, if it is time to."""
        split = await read_split(self._redis, self._model)
        now = time.monotonic()
        if split is None or now < self._again:
            return
        revision, at = self._looked
        if split.revision == revision and now - at < LOOK_EVERY_S:
            return
        try:
            await self._set(split)
        except RegistryError as error:
            self._again = now + min(LONGEST_RETRY_S, RETRY_S * 2.0 ** min(self._failures, 30))
            self._failures += 1
            metrics.ALIASES.labels(self._model, "failed").inc()
            self._say(f"{error}; they follow when it answers: are {TRACKING} and its credentials right?")
            return
        self._failures, self._looked = 0, (split.revision, now)

    async def _set(self, split: Split) -> None:
        named = await self._registry.aliases(self._model)
        unknown = []
        for alias, version in (("champion", split.champion), ("challenger", split.challenger)):
            wanted = None
            if version is not None:
                wanted = await self._registry.version_of(self._model, split.digests.get(version, ""))
                if wanted is None:
                    unknown.append(f"{self._model}:{version}")
                    continue
            if wanted != named.get(alias):
                await self._registry.set_alias(self._model, alias, wanted)
                metrics.ALIASES.labels(self._model, "set").inc()
                now_named = "no version" if wanted is None else f"version {wanted}, which is {version}"
                logger.info("%s, revision %d: %s is %s in MLflow", self._model, split.revision, alias, now_named)
        if unknown:
            self._say(
                f"the registry has no version for {' and '.join(unknown)}, whose aliases stay as they are: "
                f"`rollout build` registers a bundle where {TRACKING} is set"
            )
        else:
            self._said = ""

    def _say(self, what: str) -> None:
        """Says what is wrong once, until it is something else."""
        if what != self._said:
            self._said = what
            logger.warning("the aliases of %s in MLflow: %s", self._model, what)
