"""A collector: takes OTLP over HTTP and decodes it by OpenTelemetry's own messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Receiver:
    """What came in.

    Attributes:
        spans: In the order in which they came.
        figures: The last batch of metrics by their names.
        resources: The attributes of who sent.
        batches: How often metrics came.
    """

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.figures: dict[str, Any] = {}
        self.resources: list[dict[str, Any]] = []
        self.batches = 0

    def take(self, path: str, body: bytes) -> None:
        """Takes what an exporter sends."""
        if path == "/v1/traces":
            for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(values(sent.resource.attributes))
                self.spans += [span for scope in sent.scope_spans for span in scope.spans]
        else:
            (sent,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
            self.resources.append(values(sent.resource.attributes))
            self.figures = {metric.name: metric for scope in sent.scope_metrics for metric in scope.metrics}
            self.batches += 1

    def trace(self, trace_id: str, count: int) -> dict[str, Any]:
        """Waits for as many spans of a trace, and returns them by name."""
        found: list[Any] = []

        def is_there() -> bool:
            found[:] = [span for span in self.spans if span.trace_id.hex() == trace_id]
            return len(found) >= count

        wait_until(is_there)
        assert len(found) == count, found
        return {span.name: span for span in found}


def wait_until(is_there: Callable[[], bool], seconds: float = 20) -> None:
    """Waits for something."""
    give_up = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.05)


def values(attributes: Any) -> dict[str, Any]:
    """Returns attributes as plain values."""
    return {one.key: _plain(one.value) for one in attributes}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(one) for one in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def receiving(receiver: Receiver, port: int) -> Iterator[None]:
    """Listens until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
