"""Every metric of the service. No client ID is ever a label."""

from __future__ import annotations

import os

from prometheus_client import Counter, Histogram, values

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    # The default asks the kernel for the process ID at every increment, which costs more than the increment.
    _pid = os.getpid()
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: _pid)  # type: ignore[no-untyped-call]

PREDICTIONS = Counter("rollout_predictions", "Predictions answered", ["model", "version", "variant", "arm"])
ERRORS = Counter("rollout_errors", "Requests refused or failed, by problem type", ["model", "type"])
LATENCY = Histogram(
    "rollout_request_seconds",
    "Time from the whole request to its answer",
    ["model"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
CONFIDENCE = Histogram(
    "rollout_confidence",
    "Score of the most likely class",
    ["model", "version", "arm"],
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1),
)
BATCH_ROWS = Histogram(
    "rollout_batch_rows",
    "Rows in a batch that the runtime got",
    ["model", "version"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
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
