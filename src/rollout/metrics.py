"""Every metric of the service. No client ID is ever a label."""

from __future__ import annotations

import os
import weakref

import numpy as np
from prometheus_client import Counter, Gauge, Histogram, values

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    # The default asks the kernel for the process ID at every increment, which costs more than the increment.
    _pid = os.getpid()
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: _pid)  # type: ignore[no-untyped-call]

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
        self.observe = self._values.append
        self.observe_all = self._values.extend
        _tallies.add(self)

    def flush(self) -> None:
        """Writes what was observed since the last time."""
        if not self._values:
            return
        buckets = np.searchsorted(self._histogram._upper_bounds, self._values, side="left")
        for bucket, count in enumerate(np.bincount(buckets).tolist()):
            if count:
                self._histogram._buckets[bucket].inc(count)
        self._histogram._sum.inc(sum(self._values))
        self._values.clear()


class Count:
    """Increments of one counter, written together as those of a ``Tally`` are.

    Args:
        counter: With its labels.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._count = 0
        _tallies.add(self)

    def inc(self, amount: int = 1) -> None:
        """Adds to the counter."""
        self._count += amount

    def flush(self) -> None:
        """Writes what was added since the last time."""
        if self._count:
            self._counter.inc(self._count)
            self._count = 0


_tallies: weakref.WeakSet[Tally | Count] = weakref.WeakSet()


def flush_tallies() -> None:
    """Writes all observations and increments that wait in memory."""
    for tally in tuple(_tallies):
        tally.flush()


PREDICTIONS = Counter("rollout_predictions", "Predictions answered", ["model", "version", "variant", "arm"])
ERRORS = Counter("rollout_errors", "Requests or lines of streams that failed, by problem type", ["model", "type"])
LATENCY = Histogram(
    "rollout_request_seconds",
    "Time from the whole request to its answer; without streams",
    ["model"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
CONFIDENCE = Histogram(
    "rollout_confidence",
    "Score of the most likely class",
    ["model", "version", "arm"],
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1),
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
    "Review items by what became of them: queued, deferred to the spool, or dropped because both were full",
    ["model", "reason", "fate"],
)
