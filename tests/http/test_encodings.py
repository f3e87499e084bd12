"""Compressed bodies that cost more than what comes out of them."""

from __future__ import annotations

import json
import time

import psutil
import pytest

from tests.conftest import Service
from tests.http.test_requests import BODY, ENCODERS, JSON, MIB, PREDICT, head, length, send


@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_body_of_many_empty_frames_is_refused_before_it_costs_much(service: Service, encoding: str) -> None:
    empty = ENCODERS[encoding](b"")
    if encoding == "zstd":
        empty = b"\x50\x2a\x4d\x18\0\0\0\0"  # a frame that is to be skipped
    body = empty * (7 * MIB // len(empty))
    before = worker_seconds(service)
    started = time.monotonic()
    encoded = f"Content-Encoding: {encoding}"
    answer = send(service, head(PREDICT, JSON, encoded, length(body)) + body)
    assert (answer.status, answer.kind) == (400, "malformed-body")
    assert "frames that hold next to nothing" in json.loads(answer.body)["detail"]
    assert worker_seconds(service) - before < 1 + 0.5 * (time.monotonic() - started)
    lines = b"".join(ENCODERS[encoding](BODY.replace(b"k-1", b"k-%d" % number)) for number in range(2000))
    stream = head(PREDICT, "Content-Type: application/x-ndjson", encoded, f"Content-Length: {len(lines)}")
    assert send(service, stream + lines).status == 200, "frames that hold something are taken"


def worker_seconds(service: Service) -> float:
    """Returns the seconds of CPU that everything that the service runs has used."""
    parent = psutil.Process(service.process.pid)
    return sum(sum(one.cpu_times()[:2]) for one in (parent, *parent.children(recursive=True)))
