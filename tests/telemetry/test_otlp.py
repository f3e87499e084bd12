"""Traces and metrics of a running service, as a collector gets them."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as triton

from rollout.errors import ConfigError
from rollout.routing.assignment import assign
from rollout.telemetry.setup import wanted
from tests.conftest import ROOT, Service, free_port, metric, run_service, set_split, wait_for_text
from tests.images import held_out, row, three_or_eight
from tests.service.test_challenger import BLACK, CHALLENGED, HALF, SPLIT
from tests.service.test_overload import FAULTS
from tests.telemetry.receiver import Receiver, receiving, values, wait_until

PREDICT = "/v1/models/digits/predict"
ROUTE = "POST /v1/models/{model}/predict"


class Observed(NamedTuple):
    service: Service
    receiver: Receiver
    collector: int
    grpc: int


@pytest.fixture(scope="module")
def observed(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Two workers, a challenger that fails on black images, and a collector."""
    home = tmp_path_factory.mktemp("observed")
    set_split(home, *HALF)
    collector, port, receiver = free_port(), free_port(), Receiver()
    environment = {
        "PYTHONPATH": f"{FAULTS}:{ROOT / 'src'}",
        "FAULT": "raises",
        "FAULT_VERSION": "v2",
        "ROLLOUT_BREAKER_RATE": "0.9",
        "ROLLOUT_GRPC_PORT": str(port),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    with receiving(receiver, collector), run_service(home, None, **environment) as service:
        yield Observed(service, receiver, collector, port)


def traced() -> tuple[str, str, dict[str, str]]:
    """Returns the IDs of a trace and of the caller's span, and the headers that say so."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-01", "tracestate": "them=1"}


def ask(observed: Observed, body: Any, **headers: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Sends a prediction, and returns its status, its spans and the attributes of the first of them."""
    trace, span, sent = traced()
    with observed.service.client() as client:
        answer = client.post(PREDICT, json=body, headers=sent | headers)
    reviewed = answer.status_code == 200 and answer.json().get("review")
    spans = observed.receiver.trace(trace, 1 if answer.is_error else 4 if reviewed else 3)
    request = spans[ROUTE]
    assert request.parent_span_id.hex() == span
    assert answer.headers["traceparent"].split("-")[1:3] == [trace, request.span_id.hex()]
    return answer.status_code, spans, values(request.attributes)


def test_a_request_is_the_callers_child_and_its_parts_add_up(observed: Observed) -> None:
    client_id = next(f"c-{n}" for n in range(100) if assign(SPLIT, f"c-{n}").arm == "control")
    status, spans, about = ask(observed, {"client_id": client_id, "inputs": {"image": three_or_eight()}})
    request, queue, model, review = (spans[name] for name in (ROUTE, "queue", "model", "review"))
    assert status == about["http.response.status_code"] == 200
    assert (about["rollout.model"], about["rollout.rows"], about["rollout.revision"]) == ("digits", 1, 1)
    assert request.trace_state == "them=1"
    assert {one.parent_span_id for one in (queue, model, review)} == {request.span_id}
    times = [request.start_time_unix_nano, queue.start_time_unix_nano, queue.end_time_unix_nano]
    times += [model.end_time_unix_nano, review.end_time_unix_nano, request.end_time_unix_nano]
    assert times == sorted(times)
    assert queue.end_time_unix_nano == model.start_time_unix_nano
    assert model.end_time_unix_nano == review.start_time_unix_nano
    assert 0 < times[-1] - times[0] < 5e9
    assert values(review.attributes)["rollout.review"] == ["queued"]
    assert client_id not in str(spans.values())  # nothing that says who asked leaves the service


def test_errors_sheds_and_fallbacks_say_what_they_are(observed: Observed) -> None:
    status, spans, about = ask(observed, {})
    assert (status, about["error.type"], about["rollout.shed"]) == (422, "invalid-request", False)
    assert spans[ROUTE].status.code == 0  # the caller's fault
    many = {"instances": [row()] * 500}
    status, spans, about = ask(observed, many, **{"X-Request-Timeout": "1"})
    assert (status, about["error.type"], about["rollout.shed"]) == (503, "deadline-exceeded", True)
    assert spans[ROUTE].status.code == 2
    _, spans, about = ask(observed, {"client_id": CHALLENGED[0], "inputs": {"image": BLACK}})
    assert (about["rollout.arm"], about["rollout.fallback"]) == (["challenger"], ["error"])
    assert values(spans["model"].attributes)["rollout.version"] == ["v1"]


def test_grpc_calls_are_traced_as_well(observed: Observed) -> None:
    trace, span, headers = traced()
    pixels = np.asarray(held_out().inputs["image"][:2], np.uint8)
    inputs = [triton.InferInput("image", pixels.shape, "UINT8").set_data_from_numpy(pixels)]
    with triton.InferenceServerClient(f"127.0.0.1:{observed.grpc}") as client:
        client.infer("digits", inputs, headers=headers | {"x-client-id": "c-1"})
        name = "inference.GRPCInferenceService/ModelInfer"
        spans = observed.receiver.trace(trace, 3)
        about = values(spans[name].attributes)
        assert spans[name].parent_span_id.hex() == span
        assert (about["rpc.method"], about["rollout.rows"], about["rollout.model"]) == ("ModelInfer", 2, "digits")
        failed, _, headers = traced()
        with pytest.raises(triton.InferenceServerException):
            client.infer("cats", inputs, headers=headers | {"x-client-id": "c-1"})
        about = values(observed.receiver.trace(failed, 1)[name].attributes)
        assert about["error.type"] == "unknown-model"


def test_what_the_caller_does_not_sample_and_probes_send_nothing(observed: Observed) -> None:
    trace, span, _ = traced()
    with observed.service.client() as client:
        client.post(PREDICT, json=row(), headers={"traceparent": f"00-{trace}-{span}-00"})
        client.get("/readyz")
    ask(observed, row())
    time.sleep(0.5)
    assert not [one for one in observed.receiver.spans if one.trace_id.hex() == trace]
    assert not [one for one in observed.receiver.spans if "readyz" in one.name]


def test_metrics_are_those_of_the_page(observed: Observed) -> None:
    receiver, client = observed.receiver, observed.service.client()
    with client:
        for number in range(20):
            client.post(PREDICT, json=row(number))
        time.sleep(0.5)
        batch = receiver.batches
        wait_until(lambda: receiver.batches >= batch + 2)
        figures = receiver.figures
        page = client.get("/metrics").text
    families = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    with_samples = {
        name.removesuffix("_total") for name in families if f"\n{name}{{" in page or f"\n{name} " in page
    }
    assert set(figures) >= with_samples
    answered = sum(point.as_double for point in figures["rollout_predictions"].sum.data_points)
    with observed.service.client() as client:
        assert answered == metric(client, "rollout_predictions_total") >= 20
        waited = figures["rollout_request_seconds"].histogram.data_points
        assert sum(one.count for one in waited) == metric(client, "rollout_request_seconds_count")
        assert all(sum(one.bucket_counts) == one.count for one in waited)
        assert all(len(one.bucket_counts) == len(one.explicit_bounds) + 1 for one in waited)
    assert figures["rollout_request_seconds"].unit == "s"
    assert figures["rollout_predictions"].sum.is_monotonic
    # Both workers are one instance, which says what the operator said.
    assert len({one["service.instance.id"] for one in receiver.resources}) == 1
    assert receiver.resources[0]["service.name"] == "rollout"
    assert receiver.resources[0]["deployment.environment.name"] == "test"


def test_without_a_collector_spans_are_lost_and_that_is_said_once(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, "--champion", "v1")
    collector, receiver = free_port(), Receiver()
    environment = {
        "ROLLOUT_WORKERS": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with run_service(tmp_path, None, **environment) as service, service.client() as client:
        for _ in range(3):
            assert client.post(PREDICT, json=row()).status_code == 200
            wait_for_text(service.log, "does not take spans")
            time.sleep(1.5)
        with receiving(receiver, collector):
            wait_until(lambda: client.post(PREDICT, json=row()).status_code == 200 and bool(receiver.spans))
            wait_for_text(service.log, "takes spans again")
        client.post(PREDICT, json=row())
        started = time.monotonic()
        service.stop()
        assert time.monotonic() - started < 10
    log = service.log.read_text()
    assert log.count("does not take spans") <= 2  # the last one is lost at the end
    assert "Traceback" not in log
    assert "opentelemetry" not in log.replace("OTEL_", "")


def test_what_the_variables_ask_for() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}
    assert not wanted("traces", {})
    assert wanted("traces", endpoint)
    assert wanted("metrics", {"OTEL_METRICS_EXPORTER": "otlp"})
    assert not wanted("metrics", endpoint | {"OTEL_METRICS_EXPORTER": "none"})
    assert not wanted("traces", {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"})
    assert not wanted("traces", endpoint | {"OTEL_SDK_DISABLED": "true"})
    with pytest.raises(ConfigError, match="OTEL_TRACES_EXPORTER=jaeger"):
        wanted("traces", {"OTEL_TRACES_EXPORTER": "jaeger"})
    with pytest.raises(ConfigError, match="http/protobuf"):
        wanted("traces", endpoint | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_the_page_names_every_attribute() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    code = (ROOT / "src" / "rollout" / "telemetry" / "spans.py").read_text()
    named = set(re.findall(r'"((?:rollout|http|rpc|error)\.[a-z_.]+)"', code))
    assert len(named) > 10
    assert {name for name in named if f"`{name}`" not in page} == set()
