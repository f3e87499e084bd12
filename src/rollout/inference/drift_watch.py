"""The look at drift: of all workers, one reads the windows of live rows, judges them and says what it found."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import numpy as np

from rollout import metrics
from rollout.bundle.baseline import ANSWER
from rollout.errors import StoreUnavailableError
from rollout.inference.reviewed_rows import CONFIDENCE, ReviewedRows
from rollout.inference.served_model import ServedModel
from rollout.inference.version import LoadedVersion
from rollout.judge.baseline import Baseline
from rollout.judge.drift import ALPHA, TOGETHER, DriftReport, Window, judge_drift
from rollout.judge.reweighting import PredictedAccuracy, predict_accuracy
from rollout.keys import Keys
from rollout.lease import Lease
from rollout.repeating import repeat
from rollout.routing.assignment import Arm
from rollout.routing.drift import ArmDrift, DriftView, keep_drift, view_drift
from rollout.routing.drift_windows import Windows
from rollout.store import Redis

LOOK_EVERY_S = 10.0
LEASE_S = 30.0
# A look takes at most this part of the time of one worker: with many features, there are fewer looks.
PART = 0.01
LONGEST_PAUSE_S = 120.0

logger = logging.getLogger(__name__)


class DriftWatch:
    """Looks at the live rows of one model. Any worker can take over at any time: all it goes by is in Redis.

    Args:
        redis: Connection.
        model: The model.
    """

    def __init__(self, redis: Redis, model: ServedModel) -> None:
        self._redis = redis
        self._model = model
        self._lease = Lease(redis, Keys(model.name).drift_lock, LEASE_S)
        self._reviewed = ReviewedRows(redis, model)
        self._windows: dict[Arm, tuple[LoadedVersion, Windows]] = {}
        self._due = self._cost = 0.0
        self._said: set[str] = set()
        self._shown: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Looks for ever; with Redis gone, nothing happens."""
        try:
            await repeat(self._step, LOOK_EVERY_S, f"the rows of {self._model.name} could not be looked at")
        finally:
            self._show(None)
            with suppress(StoreUnavailableError):
                await self._lease.release()

    async def _step(self) -> None:
        if not await self._lease.hold():
            self._show(None)
            return
        if time.monotonic() >= self._due:
            self._cost = 0.0
            self._show(await self.look())
            self._due = time.monotonic() + min(LONGEST_PAUSE_S, self._cost / PART)

    async def look(self) -> DriftView:
        """Looks once, and keeps what it found.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """
        await self._reviewed.follow()
        now = time.time()
        arms: list[ArmDrift] = []
        bare: list[str] = []
        counts = self._model.snapshot.counts
        for arm, counted in counts.items():
            loaded = counted.loaded
            if loaded is not None and loaded.baseline is not None:
                arms.append(await self._look_at(arm, loaded, loaded.baseline, ALPHA / len(counts), now))
            elif loaded is not None and loaded.manifest.tag not in bare:
                bare.append(loaded.manifest.tag)
        view = view_drift(self._model.name, arms, bare)
        await keep_drift(self._redis, view)
        self._say(view)
        return view

    async def _look_at(
        self, arm: Arm, loaded: LoadedVersion, baseline: Baseline, alpha: float, now: float
    ) -> ArmDrift:
        windows = await self._windows_of(loaded, baseline, arm).read(now)
        packed_at = datetime.fromisoformat(loaded.manifest.created_at).timestamp()
        found, cost = await asyncio.to_thread(_judge, baseline, windows, packed_at, alpha)
        self._cost += cost
        predicted = self._predict(loaded, baseline, windows, found)
        return ArmDrift(arm=arm, version=loaded.version, found=found, predicted=predicted)

    def _windows_of(self, loaded: LoadedVersion, baseline: Baseline, arm: Arm) -> Windows:
        known = self._windows.get(arm)
        if known is None or known[0] is not loaded:
            windows = Windows(self._redis, self._model.name, loaded.digest, arm, baseline.size)
            known = self._windows[arm] = loaded, windows
        return known[1]

    def _predict(
        self, loaded: LoadedVersion, baseline: Baseline, windows: Sequence[Window], found: DriftReport
    ) -> list[PredictedAccuracy]:
        """Predicts accuracy since something moved, from the input that moved farthest and from the confidence."""
        moved = [one for one in found.features if one.moved and one.since is not None and one.feature != TOGETHER]
        if not moved:
            return []
        farthest = max(moved, key=lambda one: (not one.feature.startswith(f"{ANSWER}."), one.distance))
        since = datetime.fromisoformat(farthest.since or "").timestamp()
        live = sum((window.vector for window in windows if window.start >= since), np.zeros(baseline.size))
        predicted = [
            predict_accuracy(baseline, feature, live, self._reviewed.of(loaded, feature))
            for feature in dict.fromkeys([farthest.feature, CONFIDENCE])
            if feature in baseline.features
        ]
        return [one for one in predicted if one is not None]

    def _say(self, view: DriftView) -> None:
        """Says in the log what has moved, once for as long as it lasts."""
        moved = {f"{arm.arm} {one.feature}": one.detail for arm, one in view.moved}
        for what in moved.keys() - self._said:
            logger.warning("drift of %s: %s", view.model, moved[what])
        self._said = set(moved)

    def _show(self, view: DriftView | None) -> None:
        """Shows what was found as metrics, of the worker that looks."""
        name = self._model.name
        shown: set[tuple[str, str]] = set()
        if view is not None:
            for arm in view.arms:
                for one in arm.found.features:
                    shown.add((arm.arm, one.feature))
                    metrics.DRIFT_MOVED.labels(name, arm.arm, one.feature).set(one.moved)
                    metrics.DRIFT_DISTANCE.labels(name, arm.arm, one.feature).set(one.distance)
        for arm_name, feature in self._shown - shown:
            metrics.DRIFT_MOVED.labels(name, arm_name, feature).set(0)
            metrics.DRIFT_DISTANCE.labels(name, arm_name, feature).set(0)
        self._shown = shown


def _judge(
    baseline: Baseline, windows: Sequence[Window], packed_at: float, alpha: float
) -> tuple[DriftReport, float]:
    """Judges windows, and returns how many seconds of CPU that took."""
    began = time.thread_time()
    found = judge_drift(baseline, windows, packed_at=packed_at, alpha=alpha)
    return found, time.thread_time() - began
