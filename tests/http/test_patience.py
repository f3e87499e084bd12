"""What a stream does when the engine is busy or the model fails: with an engine that does so when told to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rollout import Classification, InputSchema
from rollout.bundle.numbers import Number
from rollout.config import Settings
from rollout.errors import DeadlineExceededError, OverloadedError, PredictionFailedError
from rollout.http.request_options import RequestOptions
from rollout.http.stream import PredictStream
from rollout.inference.decisions import Decisions
from rollout.inference.rows import Answers, Rows
from rollout.routing.assignment import Assignment
from rollout.routing.split import Split

GROUP = 8
COINS = Classification(labels=["heads", "tails"])


class Engine:
    """Answers rows, unless ``refuse`` raises.

    Args:
        refuse: Called with the number of the attempt and the rows.
    """

    def __init__(self, refuse: Callable[[int, Rows], None]) -> None:
        self._refuse = refuse
        self.in_flight = self.attempts = 0
        self.groups: list[int] = []

    async def predict(self, _: Any, rows: Rows) -> Answers:
        self.attempts += 1
        await asyncio.sleep(0)
        self._refuse(self.attempts, rows)
        count = len(rows.client_ids)
        self.groups.append(count)
        decisions = Decisions(np.tile([0, 0.75, 0.25], (count, 1)), np.zeros(count, bool))
        assignments = [Assignment("champion", "v1", None)] * count
        split, variants = Split(champion="v1"), {"v1": "onnx"}
        return Answers(split, COINS, assignments, variants, {}, decisions, {}, {}, 0.0, 0.0, 0.0)


async def stream(engine: Engine, rows: int, timeout_ms: int = 1000) -> list[dict[str, Any]]:
    """Sends rows in one piece; returns the answers."""
    version = SimpleNamespace(profile=SimpleNamespace(max_batch=GROUP))
    model: Any = SimpleNamespace(
        name="coins",
        task=COINS,
        schema=InputSchema({"spin": Number()}),
        snapshot=SimpleNamespace(champion=version, challenger=None),
        note_refused=lambda _: None,
    )
    body = b"".join(b'{"client_id": "c-%d", "inputs": {"spin": %d}}\n' % (n, n) for n in range(rows))
    sent: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    settings = Settings(timeout_ms=timeout_ms)
    predictions = PredictStream(engine, model, settings, RequestOptions(), asyncio.Event())  # type: ignore[arg-type]
    await predictions.run(receive, send)
    return [json.loads(line) for line in b"".join(sent).splitlines()]


def never(_: int, __: Rows) -> None:
    """Refuses nothing."""


async def test_groups_are_no_larger_than_a_batch() -> None:
    engine = Engine(never)
    answers = await stream(engine, 3 * GROUP + 1)
    assert engine.groups == [GROUP, GROUP, GROUP, 1]
    assert [answer["client_id"] for answer in answers] == [f"c-{number}" for number in range(3 * GROUP + 1)]


@pytest.mark.parametrize("error", [OverloadedError, DeadlineExceededError])
async def test_overload_is_waited_out(error: type[OverloadedError]) -> None:
    def refuse(attempt: int, _: Rows) -> None:
        if attempt in (1, 2, 4):
            raise error("later")

    engine = Engine(refuse)
    answers = await stream(engine, 2 * GROUP)
    assert [answer["label"] for answer in answers] == ["heads"] * 2 * GROUP
    assert engine.attempts == 5


async def test_overload_is_waited_out_until_the_deadline_of_each_group() -> None:
    def refuse(attempt: int, rows: Rows) -> None:
        assert time.monotonic() < rows.deadline <= time.monotonic() + 0.1
        if "c-0" in rows.client_ids:
            raise OverloadedError("later")

    start = time.monotonic()
    answers = await stream(Engine(refuse), 2 * GROUP, timeout_ms=100)
    assert 0.05 < time.monotonic() - start < 2
    late, fine = answers[:GROUP], answers[GROUP:]
    assert {(answer["type"], answer["status"]) for answer in late} == {
        ("urn:rollout:problem:deadline-exceeded", 503)
    }
    assert [answer["line"] for answer in late] == list(range(1, GROUP + 1))
    assert {answer["label"] for answer in fine} == {"heads"}


async def test_a_row_that_the_model_fails_on_fails_alone() -> None:
    def refuse(_: int, rows: Rows) -> None:
        if {"c-5", "c-6"} & set(rows.client_ids):
            raise PredictionFailedError("the model failed on this input")

    answers = await stream(Engine(refuse), GROUP)
    assert [answer.get("status") for answer in answers] == [None] * 5 + [500, 500, None]
    assert [answer["line"] for answer in answers[5:7]] == [6, 7]


async def test_what_nobody_foresaw_ends_the_stream_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(attempt: int, _: Rows) -> None:
        if attempt == 2:
            raise ZeroDivisionError

    *answers, last = await stream(Engine(refuse), 2 * GROUP)
    assert [answer["label"] for answer in answers] == ["heads"] * GROUP
    assert (last["type"], last["status"]) == ("urn:rollout:problem:internal-error", 500)
    assert "line" not in last
    assert "ZeroDivisionError" in caplog.text
