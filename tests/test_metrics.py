"""Tallies write what single observations would have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from rollout import metrics
from rollout.metrics import Tally, flush_tallies


def histogram() -> tuple[Histogram, CollectorRegistry]:
    registry = CollectorRegistry()
    return Histogram("h", "", buckets=(0.1, 0.5, 1), registry=registry), registry


def lines(registry: CollectorRegistry) -> dict[str, float]:
    text = generate_latest(registry).decode()
    return {
        line.rpartition(" ")[0]: round(float(line.rpartition(" ")[2]), 6)
        for line in text.splitlines()
        if line.startswith(("h_bucket", "h_count", "h_sum"))
    }


@given(st.lists(st.sampled_from([0, 0.05, 0.1, 0.3, 0.5, 0.7, 1, 1.5, 100])))
def test_a_tally_adds_up_to_the_same(observed: list[float]) -> None:
    (tallied, tallied_registry), (plain, plain_registry) = histogram(), histogram()
    tally = Tally(tallied)
    for number, value in enumerate(observed):
        tally.observe(value)
        plain.observe(value)
        if number % 3 == 0:
            tally.flush()
    flush_tallies()
    assert lines(tallied_registry) == lines(plain_registry)


def test_only_what_is_served_is_shown() -> None:
    for model in ("test-served", "test-removed"):
        metrics.ERRORS.labels(model, "not-found").inc(3)
        metrics.LATENCY.labels(model).observe(0.2)
    metrics.SPOOL_BYTES.set(7)
    text = metrics.render({"test-served"}).decode()
    assert 'rollout_errors_total{model="test-served",type="not-found"} 3.0' in text
    assert 'rollout_request_seconds_count{model="test-served"} 1.0' in text
    assert "rollout_spool_bytes 7.0" in text
    assert "test-removed" not in text
    assert (
        'rollout_errors_total{model="test-removed",type="not-found"} 3.0'
        in metrics.render({"test-removed"}).decode()
    )
