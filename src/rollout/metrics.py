"""Every metric of the service. No client ID is ever a label."""

from __future__ import annotations

import os
import weakref
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from rollout.buckets import CONFIDENCE_BUCKETS, SECONDS_BUCKETS

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    # The default asks the kernel for the process ID at every increment, which costs more than the increment.
    _process = [os.getpid()]
    os.register_at_fork(after_in_child=lambda: _process.append(os.getpid()))
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: _process[-1])  # type: ignore[no-untyped-call]

FLUSH_EVERY_S = 0.2


class Tally:
    """Observations of one histogram, written together every ``FLUSH_EVERY_S``.

    Metrics that several workers add up lie in files, and one observation there costs about as much as the small
    model whose request it counts.

    Args:
        histogram: With its labels.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._values: list[float] = []
        self._untaken = np.zeros(len(histogram._upper_bounds), np.int64)
        self.observe = self._values.append
        self.observe_all = self._values.extend
        _tallies.add(self)

    def flush(self) -> None:
        """Writes what was observed since the last time."""
        if not self._values:
            return
        buckets = np.searchsorted(self._histogram._upper_bounds, self._values, side="left")
        counts = np.bincount(buckets, minlength=len(self._untaken))
        self._untaken += counts
        for bucket, count in enumerate(counts.tolist()):
            if count:
                self._histogram._buckets[bucket].inc(count)
        self._histogram._sum.inc(sum(self._values))
        self._values.clear()

    def take(self) -> dict[int, int]:
        """Returns how many observations were written to which bucket since the last time."""
        taken = {int(bucket): int(self._untaken[bucket]) for bucket in np.flatnonzero(self._untaken)}
        self._untaken[:] = 0
        return taken


class Count:
    """Increments of one counter, written together as those of a ``Tally`` are.

    Args:
        counter: With its labels.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._count = self._untaken = 0
        _tallies.add(self)

    def inc(self, amount: int = 1) -> None:
        """Adds to the counter."""
        self._count += amount

    def flush(self) -> None:
        """Writes what was added since the last time."""
        if self._count:
            self._counter.inc(self._count)
            self._untaken += self._count
            self._count = 0

    def take(self) -> int:
        """Returns how much was written since the last time."""
        taken, self._untaken = self._untaken, 0
        return taken


_tallies: weakref.WeakSet[Tally | Count] = weakref.WeakSet()


def flush_tallies() -> None:
    """Writes all observations and increments that wait in memory."""
    for tally in tuple(_tallies):
        tally.flush()


class _Served(Collector):
    """What is counted of some models, and what is of none; the series of others stay where they are counted.

    Args:
        registry: What all is counted in.
        models: The values that the label ``model`` may have.
    """

    def __init__(self, registry: CollectorRegistry, models: Collection[str]) -> None:
        self._registry, self._models = registry, models

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics without the series of other models."""
        for metric in self._registry.collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if "model" not in sample.labels or sample.labels["model"] in self._models
            ]
            yield metric


def served(models: Collection[str]) -> CollectorRegistry:
    """Returns the metrics, added up over the workers.

    Args:
        models: Those that are served: of one whose split was removed, nothing is shown until it comes back.
    """
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    found = CollectorRegistry()
    found.register(_Served(registry, models))
    return found


def render(models: Collection[str]) -> bytes:
    """Returns the metrics of some models in the text format of Prometheus."""
    return generate_latest(served(models))


def forget_dead_workers() -> None:
    """Removes what workers that are gone left of the gauges that only count the living."""
    for file in Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", "/nowhere")).glob("gauge_live*_*.db"):
        worker = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{worker}").exists():
            mark_process_dead(worker)  # type: ignore[no-untyped-call]


PREDICTIONS = Counter(
    "rollout_predictions",
    "Rows answered, by the version that answered and the arm of the client",
    ["model", "version", "variant", "arm", "revision"],
)
FAILURES = Counter(
    "rollout_failures",
    "Rows that the version of an arm failed to score, whether or not the champion answered them then",
    ["model", "version", "arm", "revision"],
)
FALLBACKS = Counter(
    "rollout_fallbacks",
    "Rows of the challenger's clients that the champion answered, by why",
    ["model", "version", "revision", "why"],
)
SECONDS = Histogram(
    "rollout_prediction_seconds",
    "Time that the rows of a request and an arm took in the engine",
    ["model", "version", "arm", "revision"],
    buckets=SECONDS_BUCKETS,
)
ERRORS = Counter("rollout_errors", "Requests or lines of streams that failed, by problem type", ["model", "type"])
REFUSED_INPUTS = Counter(
    "rollout_refused_inputs",
    "Requests that were refused, by the input that was missing or did not fit",
    ["model", "input"],
)
LATENCY = Histogram(
    "rollout_request_seconds",
    "Time from the whole request to its answer; without streams",
    ["model"],
    buckets=SECONDS_BUCKETS,
)
EXPLANATION = Histogram(
    "rollout_explanation_seconds",
    "Time that an explanation took in its process",
    ["model"],
    buckets=(0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120),
)
CONFIDENCE = Histogram(
    "rollout_confidence",
    "Score of the most likely class",
    ["model", "version", "arm", "revision"],
    buckets=CONFIDENCE_BUCKETS,
)
SHADOW = Counter(
    "rollout_shadow",
    "Rows that the challenger scored unseen, by the arm of the client: agreed, disagreed, failed, or dropped",
    ["model", "version", "arm", "revision", "outcome"],
)
SHADOW_DISTANCE = Histogram(
    "rollout_shadow_distance",
    "Total variation distance of the scores, or distance of the values in half intervals of the champion",
    ["model", "version", "arm", "revision"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
SHADOW_SECONDS = Histogram(
    "rollout_shadow_seconds",
    "Time of the batch in which the challenger scored a row unseen",
    ["model", "version", "arm", "revision"],
    buckets=SECONDS_BUCKETS,
)
REVISION = Gauge(
    "rollout_split_revision",
    "Revision of the split that the worker that is furthest behind serves",
    ["model"],
    multiprocess_mode="livemin",
)
LATEST = Gauge(
    "rollout_split_latest",
    "Revision of the split in Redis, which all workers should serve",
    ["model"],
    multiprocess_mode="livemax",
)
SHARE = Gauge(
    "rollout_split_share",
    "Share of the clients that the split in Redis gives the challenger; as many are its control",
    ["model"],
    multiprocess_mode="livemax",
)
BREAKER = Gauge(
    "rollout_breaker_open",
    "Workers that do not ask the challenger, since it failed too often",
    ["model"],
    multiprocess_mode="livesum",
)
TRIAL_CLIENTS = Gauge(
    "rollout_trial_clients",
    "Different clients in the trial under a revision, over all replicas; 0 once the revision is over",
    ["model", "revision", "arm"],
    multiprocess_mode="livemax",
)
VARIANT = Gauge(
    "rollout_variant_served",
    "1 for the variant of a version that was the fastest to pass on this machine",
    ["model", "version", "variant"],
    multiprocess_mode="max",
)
BATCH_ROWS = Histogram(
    "rollout_batch_rows",
    "Rows in a batch that the runtime got",
    ["model", "version"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
BATCHES = Counter(
    "rollout_batches",
    "Batches by why they left: the runtime was idle, the batch was full, or the runtime became free",
    ["model", "version", "left"],
)
QUEUE_SECONDS = Histogram(
    "rollout_queue_seconds",
    "Time that the oldest row of a batch waited",
    ["model", "version"],
    buckets=(0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1),
)
REVIEW_ITEMS = Counter(
    "rollout_review_items",
    "Review items by what became of them: queued, deferred to the spool, or dropped because neither kept them",
    ["model", "reason", "fate"],
)
REVIEW_OPEN = Gauge(
    "rollout_review_open",
    "Review items that wait for a decision, over all replicas",
    ["model"],
    multiprocess_mode="livemax",
)
REVIEW_OLDEST = Gauge(
    "rollout_review_oldest_seconds",
    "Age of the oldest review item that waits for a decision, over all replicas",
    ["model"],
    multiprocess_mode="livemax",
)
SPOOL_BYTES = Gauge(
    "rollout_spool_bytes",
    "Review items that wait on this replica's disk for Redis to come back",
    multiprocess_mode="livemax",
)
TRIAL_PREDICTIONS = Counter(
    "rollout_trial_predictions",
    "Predictions with a key in the trial: kept for their outcomes, or dropped for lack of room",
    ["model", "fate"],
)
OUTCOMES = Counter(
    "rollout_outcomes",
    "Outcomes reported: joined with a prediction, waiting for one, repeated, refused, or dropped",
    ["model", "fate"],
)
ACTS = Counter(
    "rollout_trial_acts",
    "Changes of the split that came by themselves: step, promote or rollback",
    ["model", "act"],
)
IMPROVEMENT = Gauge(
    "rollout_improvement",
    "1 for what became of the last attempt to make a version of labels",
    ["model", "outcome"],
    multiprocess_mode="livemax",
)
VERDICT = Gauge(
    "rollout_verdict",
    "1 for the verdict on the challenger, as the worker that looks after the trial knows it",
    ["model", "verdict"],
    multiprocess_mode="livemax",
)
ALIASES = Counter(
    "rollout_registry_aliases",
    "Aliases in MLflow's registry: set as the split says, or failed and to be tried again",
    ["model", "fate"],
)
DRIFT_MOVED = Gauge(
    "rollout_drift_moved",
    "1 for a feature of live rows that has moved for certain, as the worker that looks at them knows",
    ["model", "arm", "feature"],
    multiprocess_mode="livemax",
)
DRIFT_DISTANCE = Gauge(
    "rollout_drift_distance",
    "Share of the rows that would have to be others for a feature to be as it was in the evaluation",
    ["model", "arm", "feature"],
    multiprocess_mode="livemax",
)
WEBHOOKS = Counter(
    "rollout_webhooks",
    "Attempts to tell the webhook of a decision or a change: delivered, or failed and to be tried again",
    ["model", "fate"],
)
