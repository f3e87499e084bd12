"""Compressed bodies, and those that cost more than what comes out of them."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable

import psutil
import pytest
from backports import zstd

from tests.conftest import Service
from tests.http.test_requests import BODY, JSON, MIB, PREDICT, head, length, send
from tests.images import row


def deflate(body: bytes) -> bytes:
    return zlib.compress(body)


ENCODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": deflate, "zstd": zstd.compress}


@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_compressed_body(either: Service, encoding: str) -> None:
    encode = ENCODERS[encoding]
    encoded = f"Content-Encoding: {encoding}"
    native = json.dumps({"model": "digits", "instances": [row()]}).encode()
    for path, body, content_type in (
        (PREDICT, BODY, JSON),
        ("/predict", native, JSON),
        (PREDICT, BODY + b"\n" + BODY, "Content-Type: application/x-ndjson"),
    ):
        sent = encode(body)
        answer = send(either, head(path, content_type, encoded, length(sent)) + sent)
        assert answer.status == 200
        cut = sent[:-5]
        if "ndjson" not in content_type:
            answer = send(either, head(path, content_type, encoded, length(cut)) + cut)
            assert (answer.status, answer.kind) == (400, "malformed-body")
    twice = encode(BODY[:50]) + encode(BODY[50:])
    assert send(either, head(PREDICT, JSON, encoded, length(twice)) + twice).status == 200
    for wrong in (BODY, encode(BODY) + b"garbage"):
        answer = send(either, head(PREDICT, JSON, encoded, length(wrong)) + wrong)
        assert (answer.status, answer.kind) == (400, "malformed-body")
    bomb = encode(b" " * 500 * MIB)
    answer = send(either, head(PREDICT, JSON, encoded, length(bomb)) + bomb)
    assert (answer.status, answer.kind) == (413, "body-too-large")


def test_other_encodings_are_refused_by_name(either: Service) -> None:
    for encoding in ("br", "gzip, zstd", "x-gzip"):
        answer = send(either, head(PREDICT, JSON, f"Content-Encoding: {encoding}", length(BODY)) + BODY)
        assert answer.status == 415
        assert "gzip, deflate, zstd" in json.loads(answer.body)["detail"]
    assert send(either, head(PREDICT, JSON, "Content-Encoding: identity", length(BODY)) + BODY).status == 200


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
