"""Models that get their first split, or their bundle, while the worker runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from rollout.bundle.store import bundle_names
from rollout.config import Settings
from rollout.errors import BundleError, MissingBundleError, StoredValueError, StoreUnavailableError
from rollout.inference.follower import FOLLOW_EVERY_S, PATIENCE_S, Refusal, load_model
from rollout.inference.served_model import ServedModel
from rollout.routing.split import Split
from rollout.routing.splits import read_split
from rollout.store import Redis, is_cancelled

logger = logging.getLogger(__name__)


class Discovery:
    """Looks for models that have a bundle and a split, and are not served yet.

    Args:
        served: The models that are served, by name.
        redis: Connection.
        settings: With which versions are loaded.
        add: Takes a model that is ready.
    """

    def __init__(
        self,
        served: Mapping[str, ServedModel],
        redis: Redis,
        settings: Settings,
        add: Callable[[ServedModel], None],
    ) -> None:
        self._served = served
        self._redis = redis
        self._settings = settings
        self._add = add
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, Refusal] = {}
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Looks for ever; with Redis gone, there is nothing new."""
        while not is_cancelled():
            await asyncio.sleep(FOLLOW_EVERY_S)
            try:
                await self.look()
            except StoreUnavailableError:
                pass
            except Exception:
                logger.exception("models with a new split could not be looked for; trying again")

    async def look(self) -> None:
        """Looks once; a model that takes long to load, or for ever, is not waited for.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """
        for name in [name for name, load in self._loading.items() if load.done()]:
            self._loading.pop(name).result()
        for name in sorted(await asyncio.to_thread(bundle_names) - self._served.keys() - self._loading.keys()):
            try:
                split = await read_split(self._redis, name)
            except StoredValueError as error:
                self._say(name, error.detail)
                continue
            refusal = self._refused.get(name)
            if split is None or (refusal and await asyncio.to_thread(refusal.holds, split)):
                continue
            load = self._loading[name] = asyncio.create_task(self._load(name, split))
            await asyncio.wait({load}, timeout=PATIENCE_S)
            if load.done():
                self._loading.pop(name).result()

    async def _load(self, name: str, split: Split) -> None:
        began = time.time()
        try:
            model = await load_model(name, split, self._settings, self._redis)
        except BundleError as error:
            if not isinstance(error, MissingBundleError):  # that one may come
                self._refused[name] = Refusal(split.revision, (f"{name}:{split.champion}",), began)
            self._say(name, error.detail)
        else:
            self._said.pop(name, None)
            self._add(model)

    def _say(self, name: str, trouble: str) -> None:
        """Says once why a model is not served."""
        if self._said.get(name) != trouble:
            self._said[name] = trouble
            logger.error("%s is not served: %s", name, trouble)
