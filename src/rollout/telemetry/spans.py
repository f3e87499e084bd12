"""A request as spans, made after its answer from the times that were measured anyway."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rollout.inference.rows import Answers
from rollout.telemetry.collector import Collector, session

# They are asked every few seconds, by machines.
UNTRACED = frozenset({"/livez", "/readyz", "/healthz", "/metrics", "ServerLive", "ServerReady"})
# The types of problems by which work is refused because there is too much of it.
SHED = frozenset({"overloaded", "deadline-exceeded"})
NS = 1_000_000_000


class _Headers(Getter[Sequence[tuple[bytes, bytes]]]):
    def get(self, carrier: Sequence[tuple[bytes, bytes]], key: str) -> list[str] | None:
        return [value.decode("latin-1") for name, value in carrier if name == key.encode()] or None

    def keys(self, carrier: Sequence[tuple[bytes, bytes]]) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


class _Ids(RandomIdGenerator):
    """Gives a request's span the IDs that its caller, the log and the review items know it by."""

    trace = span = 0

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        given, self.span = self.span, 0
        return given or super().generate_span_id()


class _Exporter(OTLPSpanExporter):
    """Says once that the collector is away."""

    def __init__(self) -> None:
        super().__init__(session=session())
        self.collector = Collector("spans", OTLPSpanExporter.__module__)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self.collector.note(took_it=result is SpanExportResult.SUCCESS)
        return result


class Spans:
    """Records requests as spans. What the collector does not take in time is dropped, and nobody waits for it.

    Args:
        resource: Who records.
    """

    def __init__(self, resource: Resource) -> None:
        self._ids = _Ids()
        self._exporter = _Exporter()
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("rollout")
        self._propagator = TraceContextTextMapPropagator()
        self._headers = _Headers()

    def record(self, scope: Mapping[str, Any], status: int) -> None:
        """Records a request that was answered: its span, and what it waited for as children.

        Args:
            scope: Of ASGI, with what was found out about the request.
            status: Of the answer.
        """
        route = getattr(scope.get("matched"), "path", None)
        if route in UNTRACED:
            return
        end = time.time_ns()
        start = end - round((time.perf_counter() - scope["started"]) * NS)
        _, trace, span, _ = scope["traceparent"].split(b"-")[:4]
        self._ids.trace, self._ids.span = int(trace, 16), int(span, 16)
        method = scope.get("method", "-")
        is_grpc = method == "gRPC"
        request = self._tracer.start_span(
            f"{'inference.GRPCInferenceService/' if is_grpc else f'{method} '}{route or ''}".strip(),
            self._parent(scope),
            SpanKind.SERVER,
            _about(scope, status, method, route),
            start_time=start,
        )
        if not request.is_recording():
            return
        if status >= 500:
            request.set_status(Status(StatusCode.ERROR, scope.get("problem")))
        answers: Answers | None = scope.get("answers")
        if answers is not None:
            places = scope.get("places") or range(len(answers.assignments))
            request.set_attributes(_answered(answers, places))
            self._parts(set_span_in_context(request, Context()), answers, places, start, end)
        request.end(end)

    def close(self) -> None:
        """Sends what waits; nothing of it to a collector that is away."""
        if self._exporter.collector.is_away:
            self._exporter.shutdown()  # type: ignore[no-untyped-call]
        self._provider.shutdown()

    def _parent(self, scope: Mapping[str, Any]) -> Context:
        parent = self._propagator.extract(scope.get("headers", ()), Context(), self._headers)
        # What one of both takes for valid and the other does not begins a trace of its own.
        is_same = get_current_span(parent).get_span_context().trace_id == self._ids.trace
        return parent if is_same else Context()

    def _parts(self, request: Context, answers: Answers, places: range, start: int, end: int) -> None:
        """Adds the time in the queue, in the model, and until the review items were kept."""
        decided = min(round(answers.at * NS), end)
        begun = max(decided - round(answers.ran * NS), start)
        came = max(begun - round(answers.waited * NS), start)
        model = {
            "rollout.version": sorted({answers.version(place) for place in places}),
            "rollout.batch_rows": len(answers.assignments),
        }
        self._part("queue", request, came, begun, {})
        self._part("model", request, begun, decided, model)
        fates = sorted({fate for place in places if (fate := answers.fates.get(place)) is not None})
        if fates:
            self._part("review", request, decided, end, {"rollout.review": fates})

    def _part(self, name: str, request: Context, start: int, end: int, attributes: Mapping[str, Any]) -> None:
        part: Span = self._tracer.start_span(name, request, attributes=attributes, start_time=start)
        part.end(end)


def _about(scope: Mapping[str, Any], status: int, method: str, route: str | None) -> dict[str, Any]:
    """Returns what a request is, by OpenTelemetry's conventions; without its path, which may name a client."""
    if method == "gRPC":
        found: dict[str, Any] = {
            "rpc.system": "grpc",
            "rpc.service": "inference.GRPCInferenceService",
            "rpc.method": route,
        }
    else:
        found = {"http.request.method": method, "http.response.status_code": status}
        if route is not None:
            found["http.route"] = route
    model = scope.get("model")
    if model is None and "answers" in scope:
        model = scope["path"].split("/")[3]  # /v1/models/{model}/predict, or /v2/models/{model}/infer
    if model is not None:
        found["rollout.model"] = model
    if problem := scope.get("problem"):
        found |= {"error.type": problem, "rollout.shed": problem in SHED}
    elif status >= 500:
        found["error.type"] = str(status)
    return found


def _answered(answers: Answers, places: range) -> dict[str, Any]:
    """Returns what became of the rows of a request; no client, no key."""
    found = {
        "rollout.rows": len(places),
        "rollout.revision": answers.split.revision,
        "rollout.arm": sorted({answers.assignments[place].arm for place in places}),
        "rollout.fallback": sorted({answers.fallbacks[place] for place in places if place in answers.fallbacks}),
    }
    return {name: value for name, value in found.items() if value != []}
