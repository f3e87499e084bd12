"""What the load is made of: arrivals, requests, and the slope of a curve."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep

import numpy as np
import pytest

from loadtests import open_loop
from loadtests.bodies import CLIENTS, KEY, Request, cycle, images
from loadtests.contenders import BENTOML, CONTENDERS, ONE
from loadtests.slope import fit_slope


def test_arrivals_are_bursty_seeded_and_have_the_rate_asked_for() -> None:
    due = open_loop.schedule(100, 200)
    gaps = np.diff(due)
    assert gaps.mean() == pytest.approx(0.01, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(2, rel=0.1)  # one over the root of the shape
    assert (due == open_loop.schedule(100, 200)).all()
    assert (due != open_loop.schedule(100, 200, seed=1)).any()


class Stalling(BaseHTTPRequestHandler):
    """Answers one at a time and takes 20 ms for each; every other answer is a 500."""

    count = itertools.count()

    def do_POST(self) -> None:
        sleep(0.02)
        self.send_response(500 if next(self.count) % 2 else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class OneByOne(ThreadingHTTPServer):
    def process_request(self, request: object, client_address: object) -> None:
        self.process_request_thread(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def stalling() -> Iterator[str]:
    with OneByOne(("127.0.0.1", 0), Stalling) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_latency_counts_from_when_a_request_was_due(stalling: str) -> None:
    # All ten are due at once: the last is answered after 200 ms, though its own turn takes 20.
    requests = cycle([Request("/", {}, b"")])
    found = asyncio.run(open_loop.run(stalling, requests, np.full(10, 0.001)))
    assert found.p50_ms > 80
    assert found.p99_ms > 180
    assert (found.requests, found.failures) == (10, 5)


def test_every_contender_is_asked_for_the_same_images() -> None:
    assert len(images()) == CLIENTS
    for contender in CONTENDERS:
        assert len(contender.requests("digits")) == CLIENTS
    first = BENTOML.requests("digits")[0].as_bytes()
    head, body = first.split(b"\r\n\r\n")
    assert head.startswith(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_no_two_predictions_have_the_same_key() -> None:
    asked = list(itertools.islice(cycle(ONE.requests("digits")[:2]), 5))
    assert len({request.body for request in asked}) == 5
    assert not any(KEY.encode() in request.body for request in asked)


@pytest.mark.parametrize(
    ("per_hour", "noise", "verdict"),
    [(0, 0.1, "flat"), (4, 0.1, "flat"), (20, 0.1, "growing"), (20, 200, "unclear: run it for longer")],
)
def test_a_curve_is_flat_growing_or_unclear(per_hour: float, noise: float, verdict: str) -> None:
    seconds = np.arange(0, 3600, 10)
    mib = 100 + per_hour * seconds / 3600 + np.random.default_rng(0).normal(0, noise, len(seconds))
    slope = fit_slope(seconds, mib)
    assert slope.low < slope.per_hour < slope.high
    assert slope.verdict(limit=5) == verdict
