"""What all replicas share, as gauges: the clients of the trial, the review queue, what became of labels."""

from __future__ import annotations

import time
from datetime import datetime
from typing import get_args

from rollout import metrics
from rollout.inference.served_model import ServedModel
from rollout.repeating import repeat
from rollout.review.counts import read_counts
from rollout.review.state import State
from rollout.routing.client_counts import TRIAL, add_clients, count_clients
from rollout.routing.improvement import Outcome, read_improvement
from rollout.store import Redis

SHOW_EVERY_S = 5.0


class Gauges:
    """Tells Redis which clients a worker answered, and shows what Redis knows from all of them.

    Args:
        model: The model.
        redis: Connection.
    """

    def __init__(self, model: ServedModel, redis: Redis) -> None:
        self._model = model
        self._redis = redis
        self._shown = 0  # the revision whose clients are shown

    async def run(self) -> None:
        """Goes on for ever; with Redis gone, the last figures stay."""
        await repeat(self.show, SHOW_EVERY_S, f"the gauges of {self._model.name} could not be set")

    async def show(self) -> None:
        """Does it once.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """
        name = self._model.name
        for snapshot in tuple(self._model.snapshots):
            seen = {arm: counts.clients.copy() for arm, counts in snapshot.counts.items()}
            await add_clients(self._redis, name, snapshot.split.revision, seen)
            for arm, ids in seen.items():
                snapshot.counts[arm].clients -= ids
        await self._show_clients(self._model.split.revision)
        last = next(reversed((await read_improvement(self._redis, name)).attempts), None)
        for outcome in get_args(Outcome):
            metrics.IMPROVEMENT.labels(name, outcome).set(last is not None and last.outcome == outcome)
        queue = await read_counts(self._redis, name)
        metrics.REVIEW_OPEN.labels(name).set(sum(queue.states[State.OPEN].values()))
        age = 0.0 if queue.oldest is None else time.time() - datetime.fromisoformat(queue.oldest).timestamp()
        metrics.REVIEW_OLDEST.labels(name).set(max(0.0, age))

    async def _show_clients(self, revision: int) -> None:
        name = self._model.name
        clients = await count_clients(self._redis, name, [revision])
        for arm in TRIAL:
            if self._shown and self._shown != revision:
                metrics.TRIAL_CLIENTS.labels(name, self._shown, arm).set(0)  # it is over
            metrics.TRIAL_CLIENTS.labels(name, revision, arm).set(clients[arm])
        self._shown = revision
