"""Sketches of live rows: a sample of what was answered, counted off the hot path, added to windows in Redis."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.baseline import features_of
from rollout.bundle.parity import take
from rollout.errors import StoreUnavailableError
from rollout.inference.arm_counters import ArmCounters
from rollout.inference.client_weights import ClientWeights
from rollout.inference.refusals import Refusals
from rollout.inference.row_sample import Taken
from rollout.inference.served_model import ServedModel
from rollout.inference.version import LoadedVersion
from rollout.judge.baseline import Baseline
from rollout.repeating import repeat
from rollout.routing.assignment import Arm
from rollout.routing.drift_windows import Flush, Place, Sums, add_sums, places_of
from rollout.store import Redis, reason

SKETCH_EVERY_S = 1.0
FLUSH_EVERY_S = 5.0
# While Redis is away, so many windows wait in memory; of more, the oldest go.
MOST_WAITING = 500
# So many are added at once: Redis takes a million arguments at most, and answers nobody else meanwhile.
AT_ONCE = 16

logger = logging.getLogger(__name__)


class LiveSketches:
    """Counts a model's rows in the bins of their version's baseline, and adds that to Redis.

    A worker that is killed takes the last seconds with it; what it has once added stays, and is added once.

    Args:
        model: The model.
        redis: Connection.
    """

    def __init__(self, model: ServedModel, redis: Redis) -> None:
        self._model = model
        self._redis = redis
        self._waiting: dict[Place, Sums] = {}
        self._flush: Flush | None = None  # on its way, or to be sent again
        self._flushed = time.monotonic()
        self._weights: defaultdict[Arm, ClientWeights] = defaultdict(ClientWeights)

    async def run(self) -> None:
        """Goes on for ever; while Redis is away, sketches wait in memory."""
        await repeat(self._step, SKETCH_EVERY_S, f"the rows of {self._model.name} could not be counted")

    async def _step(self) -> None:
        await self.sketch()
        if time.monotonic() - self._flushed >= FLUSH_EVERY_S:
            self._flushed = time.monotonic()
            await self.flush()

    async def close(self) -> None:
        """Adds what waits; what Redis does not take now is lost."""
        try:
            await self.sketch()
            await self.flush()
        except StoreUnavailableError as error:
            logger.warning("what the last rows of %s looked like is lost: %s", self._model.name, reason(error))

    async def sketch(self) -> None:
        """Counts the rows since the last time."""
        now = time.time()
        refused, self._model.refused = self._model.refused, Refusals()
        champion = self._model.snapshot.counts["champion"]
        for snapshot in list(self._model.snapshots):
            for counts in snapshot.counts.values():
                await self._sketch(counts, now, refused if counts is champion else Refusals())

    async def _sketch(self, counts: ArmCounters, at: float, refused: Refusals) -> None:
        loaded, sample = counts.loaded, counts.sample
        if loaded is None or loaded.baseline is None or sample is None:
            return
        taken = sample.take()
        # As many of what was refused as would be in a sample as thin as that of the rows.
        faults = refused.thinned(1.0 if taken is None else len(taken.numbers) / taken.seen)
        clients = [*(taken.clients if taken else ()), *(client for client, _ in faults)]
        admitted = self._weights[counts.arm].admit(clients, at)
        sums = np.zeros(loaded.baseline.size)
        rows = len(clients) - len(faults)
        if taken is not None and admitted[:rows].any():
            (places,) = np.nonzero(admitted[:rows])
            sums += await asyncio.to_thread(_measure, loaded, loaded.baseline, taken, places)
        counted = Counter(
            name for (_, names), own in zip(faults, admitted[rows:], strict=True) if own for name in names
        )
        sums += loaded.baseline.refused(counted)
        if sums.any():
            self._add(places_of(loaded.digest, counts.arm, at), sums)

    async def flush(self) -> None:
        """Adds what waits to the windows in Redis.

        Raises:
            StoreUnavailableError: If Redis does not answer; then it goes on waiting.
        """
        if self._flush is not None:
            await self._send(self._flush)
        while self._waiting:
            places = list(self._waiting)[:AT_ONCE]
            self._flush = Flush.of({place: self._waiting.pop(place) for place in places})
            await self._send(self._flush)

    async def _send(self, flush: Flush) -> None:
        await add_sums(self._redis, self._model.name, flush)
        self._flush = None

    def _add(self, places: list[Place], sums: Sums) -> None:
        for place in places:
            self._waiting[place] = self._waiting.get(place, 0) + sums
        while len(self._waiting) > MOST_WAITING:
            oldest = min(self._waiting, key=lambda place: place.start + place.resolution.seconds)
            del self._waiting[oldest]


def _measure(
    loaded: LoadedVersion, baseline: Baseline, taken: Taken, places: NDArray[np.intp]
) -> NDArray[np.float64]:
    head = loaded.manifest.task
    numbers = taken.numbers[places, : head.columns]
    return baseline.measure(features_of(loaded.schema.fields, head, take(taken.arrays, places), numbers))
