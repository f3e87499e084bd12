"""The figures of ``/metrics`` by OTLP: read every now and then, and sent as they are."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import Metric as Family

from rollout import metrics
from rollout.__about__ import __version__
from rollout.telemetry.collector import Collector, session
from rollout.telemetry.replica import Replica

INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"  # milliseconds
CUMULATIVE = AggregationTemporality.CUMULATIVE

logger = logging.getLogger(__name__)


class Figures:
    """Sends what all workers of a replica counted, from one of them.

    Python's SDK has no ``MetricProducer``, which is what the specification has for figures that another library
    counts; so they are handed to its exporter as what that would produce.

    Args:
        replica: Whose they are.
        models: Returns the names of the models that are served.
    """

    def __init__(self, replica: Replica, models: Callable[[], Collection[str]]) -> None:
        self._replica = replica
        self._models = models
        self._exporter = OTLPMetricExporter(session=session())
        self._collector = Collector("metrics", OTLPMetricExporter.__module__)
        self._every_s = float(os.environ.get(INTERVAL) or 60_000) / 1000
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollout-figures", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sends them a last time."""
        self._stopped.set()
        if self._collector.is_away:
            self._exporter.shutdown()
        self._thread.join()
        self._exporter.shutdown()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopped.wait(self._every_s)
            try:
                if self._replica.speaks():
                    self._send()
            except Exception:
                logger.exception("metrics were not sent; trying again")

    def _send(self) -> None:
        families = metrics.served(self._models()).collect()
        points = list(as_otlp(families, self._replica.since, time.time_ns()))
        scope = ScopeMetrics(InstrumentationScope("rollout", __version__), points, "")
        sent = self._exporter.export(MetricsData([ResourceMetrics(self._replica.resource, [scope], "")]))
        self._collector.note(took_it=sent is MetricExportResult.SUCCESS)


def as_otlp(families: Iterable[Family], since: int, now: int) -> Iterator[Metric]:
    """Translates metrics of Prometheus; see https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/.

    Args:
        families: Each with its samples.
        since: When counting began, nanoseconds since 1970.
        now: When they were read.
    """
    for family in families:
        data: Sum | Gauge | Histogram
        if family.type == "counter":
            totals = [sample for sample in family.samples if sample.name.endswith("_total")]
            points = [NumberDataPoint(one.labels, since, now, one.value) for one in totals]
            data = Sum(points, CUMULATIVE, is_monotonic=True)
        elif family.type == "histogram":
            data = Histogram(list(_histograms(family, since, now)), CUMULATIVE)
        else:
            data = Gauge([NumberDataPoint(one.labels, since, now, one.value) for one in family.samples])
        if data.data_points:
            unit = "s" if family.name.endswith("_seconds") else "By" if family.name.endswith("_bytes") else ""
            yield Metric(family.name, family.documentation, unit, data)


def _histograms(family: Family, since: int, now: int) -> Iterator[HistogramDataPoint]:
    found: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        one = found.setdefault(tuple(labels.items()), {"labels": labels, "sum": 0.0, "up_to": []})
        if sample.name.endswith("_bucket"):
            one["up_to"].append((float(sample.labels["le"]), round(sample.value)))
        elif sample.name.endswith("_sum"):
            one["sum"] = sample.value
    for one in found.values():
        bounds, up_to = zip(*sorted(one["up_to"]), strict=True)
        counts = [count - before for before, count in zip((0, *up_to[:-1]), up_to, strict=True)]
        yield HistogramDataPoint(
            one["labels"],
            since,
            now,
            count=up_to[-1],
            sum=one["sum"],
            bucket_counts=counts,
            explicit_bounds=bounds[:-1],
            min=None,  # type: ignore[arg-type]  # as for a histogram that does not record them
            max=None,  # type: ignore[arg-type]
        )
