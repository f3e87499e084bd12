"""Errors on their way to the wire: they take nothing along."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import psutil
import pytest

from rollout.errors import InvalidRequestError, RolloutError
from rollout.http.problems import as_rollout_error
from tests.conftest import Service

PREDICT = "/v1/models/digits/predict"
MIB = 1024 * 1024


class Body:
    """A body that somebody may look for."""

    text = "no number"


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_an_error_keeps_nothing_of_where_it_was_raised() -> None:
    def refuse(body: Body) -> None:
        try:
            int(body.text)
        except ValueError:
            raise InvalidRequestError("it is no number") from None

    def answer(body: Body) -> RolloutError:
        try:
            refuse(body)
        except Exception as error:
            ours = as_rollout_error(error)
        return ours

    body = Body()
    seen = weakref.ref(body)
    ours = answer(body)
    del body
    assert seen() is None
    assert ours.detail == "it is no number"


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        (PREDICT, "application/json", b'{"client_id":"c","inputs":{"image":"%b"}}'),
        (PREDICT, "application/json", b"%b"),
        (PREDICT, "application/x-ndjson", b'{"client_id":"c","inputs":{"image":"%b"}}\n'),
        (f"{PREDICT}?client_id=c", "image/png", b"%b"),
        ("/predict", "application/json", b'{"model":"digits","instances":[{"image":"%b"}]}'),
        ("/v1/models/digits/feedback", "application/json", b'{"client_id":"%b"}'),
        ("/v2/models/digits/infer", "application/json", b'{"inputs":[],"id":"%b"}'),
    ],
)
def test_a_refused_body_is_not_kept_in_memory(either: Service, path: str, kind: str, body: bytes) -> None:
    """An error that is kept in a variable kept it, up to the garbage collector: gigabytes of few requests."""
    workers = psutil.Process(either.process.pid).children(recursive=True)
    content = body % (b"A" * 7 * MIB)
    with either.client() as client:
        for number in range(30):
            if number == 4:  # what a worker takes for the first stays for the next
                before = sum(worker.memory_info().rss for worker in workers)
            answer = client.post(path, content=content, headers={"Content-Type": kind})
            assert answer.status_code in (400, 422) or b"urn:rollout:problem:" in answer.content
    assert sum(worker.memory_info().rss for worker in workers) - before < 80 * MIB
