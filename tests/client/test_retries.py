"""When a request is sent again: as the service says, where a connection broke, and never after the deadline."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from rollout.client import (
    ClientError,
    InvalidRequestError,
    NoAnswerError,
    OverloadedError,
    PredictionFailedError,
    Problem,
    UnexpectedAnswerError,
    UnreachableError,
    calls,
)
from rollout.client.problems import read_retry_after
from rollout.client.retries import LATER, Came, CameOf, Pause, Send, attempts

VERDICT = b'{"model":"m","revision":1,"verdict":"hold","reason":"no_trial","detail":"","of_tomorrow":[1]}'
FINE = Came(200, {}, VERDICT)


def refusal(kind: str, status: int, **headers: str) -> Came:
    """Returns a problem document as the service sends it."""
    body = f'{{"type":"urn:rollout:problem:{kind}","title":"T","status":{status},"detail":"why"}}'
    return Came(status, headers, body.encode())


class Played:
    """A caller whose time passes as it is told to wait.

    Args:
        came: What comes of each request, in order; the last one again and again.
        timeout: Of the caller, in seconds.
        takes: Seconds that each request takes.
    """

    def __init__(self, *came: CameOf, timeout: float = 10, takes: float = 0.0) -> None:
        self.time, self.sent, self.pauses = 0.0, list[Send](), list[float]()
        steps: Generator[Send | Pause, CameOf, Any] = attempts(calls.verdict("m"), timeout, lambda: self.time)
        given: CameOf = None
        self.answer: Any = None
        self.error: ClientError | None = None
        try:
            while True:
                step = steps.send(given)
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.time, given = self.time + step.seconds, None
                else:
                    self.sent.append(step)
                    self.time, given = self.time + takes, came[min(len(self.sent), len(came)) - 1]
        except StopIteration as done:
            self.answer = done.value
        except ClientError as error:
            self.error = error


def test_it_comes_back_when_the_service_says_and_not_before() -> None:
    played = Played(refusal("overloaded", 503, **{"retry-after": "2"}), FINE)
    assert played.answer.verdict == "hold"
    assert 2 <= played.pauses[0] <= 2 * (1 + LATER)


@pytest.mark.parametrize(
    "came", [UnreachableError("broke"), Came(502, {}, b"<html>"), Came(503, {}, b""), Came(429, {}, b"")]
)
def test_pauses_grow_where_nobody_says_how_long(came: CameOf) -> None:
    played = Played(came, came, came, came, FINE)
    assert played.answer.more == {"of_tomorrow": [1]}
    assert all(base / 2 <= pause <= base for base, pause in zip((0.1, 0.2, 0.4, 0.8), played.pauses, strict=True))


def test_who_would_come_back_too_late_is_told_at_once() -> None:
    played = Played(refusal("overloaded", 503, **{"retry-after": "11"}))
    assert isinstance(played.error, OverloadedError)
    assert (played.error.retry_after, played.time) == (11, 0)


@pytest.mark.parametrize("timeout", [0.05, 1, 10])
def test_nothing_is_sent_after_the_deadline_and_the_service_knows_what_is_left(timeout: float) -> None:
    played = Played(UnreachableError("broke"), timeout=timeout, takes=0.3)
    assert isinstance(played.error, UnreachableError | NoAnswerError)
    left = [int(one.headers["X-Request-Timeout"]) / 1000 for one in played.sent]
    assert all(one <= send.seconds <= timeout for one, send in zip(left, played.sent, strict=True))
    assert left == sorted(left, reverse=True)
    assert played.time - 0.3 < timeout


def test_what_would_be_refused_again_is_not_sent_again() -> None:
    for came, kind in (
        (refusal("invalid-request", 422), InvalidRequestError),
        (refusal("of-tomorrow", 499), Problem),
        (refusal("prediction-failed", 500), PredictionFailedError),
        (Came(404, {}, b"<html>nothing here" + b"x" * 9999), UnexpectedAnswerError),
        (Came(200, {}, b"<html>log in"), UnexpectedAnswerError),
        (Came(200, {}, b"{}"), UnexpectedAnswerError),
        (NoAnswerError(), NoAnswerError),
    ):
        played = Played(came)
        assert type(played.error) is kind
        assert len(played.sent) == 1
        assert len(str(played.error)) < 500


def test_retry_after_is_a_number_or_a_date() -> None:
    assert read_retry_after("7") == 7
    assert read_retry_after("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert (read_retry_after("Fri, 31 Dec 2099 23:59:59 GMT") or 0) > 1e9
    assert read_retry_after("") is read_retry_after("soon") is None
    for beyond in (
        "99999999999999999999 00:00:00 GMT",
        "2026 00:00:00 +99999999999999999",
        "0001 00:00:00 +2359",
    ):
        assert read_retry_after(f"Mon, 01 Jan {beyond}") in {None, 0}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 100_000,
        b'{"type":"\xff"}',
        b'{"type":"urn:rollout:problem:invalid-request","status":422,"errors":5}',
        b'{"type":"urn:rollout:problem:invalid-request","status":422,"errors":[5]}',
        b"\x1b]0;owned\x07",
    ],
)
@pytest.mark.parametrize("status", [200, 422])
def test_whatever_answers_is_one_kind_of_error(status: int, body: bytes) -> None:
    played = Played(Came(status, {}, body))
    assert isinstance(played.error, UnexpectedAnswerError)
    assert str(played.error).isprintable()
