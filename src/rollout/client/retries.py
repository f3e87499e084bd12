"""When a request is sent again, without sending it: a generator says what to do, and is told what came of it.

Every call may be repeated. A prediction follows from its inputs and its client; its review item follows from
client and key, or from the inputs where there is no key, and is made once; an outcome that comes again is the
same one. Metrics, and the requests of a trial, count each time that the service answers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from typing import NamedTuple, TypeVar

from rollout.client.calls import Call
from rollout.client.problems import (
    ClientError,
    NoAnswerError,
    Problem,
    UnexpectedAnswerError,
    UnreachableError,
    read_problem,
)

TOO_MANY_REQUESTS, BAD_GATEWAY, UNAVAILABLE, GATEWAY_TIMEOUT = 429, 502, 503, 504
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
# Those who were told to come back at the same time do not all do so.
LATER = 0.25
# The service stops this long before the caller, so that its answer arrives: seconds, or a part of the time.
EARLIER_S, EARLIER = 0.05, 0.1
LONGEST_TIMEOUT_MS = 600_000

Read = TypeVar("Read")


class Send(NamedTuple):
    """Send the request.

    Attributes:
        seconds: Within which its answer must be there.
        headers: To be sent beside those of the call.
    """

    seconds: float
    headers: Mapping[str, str]


class Pause(NamedTuple):
    """Wait.

    Attributes:
        seconds: How long.
    """

    seconds: float


class Came(NamedTuple):
    """An answer.

    Attributes:
        status: Of HTTP.
        headers: By name.
        body: All of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


# What came of a step: an answer, the error of a connection, or nothing where it was a pause.
CameOf = Came | ClientError | None


def attempts(
    call: Call[Read], timeout: float, now: Callable[[], float] = time.monotonic
) -> Generator[Send | Pause, CameOf, Read]:
    """Yields what to do until there is an answer, which it returns.

    Args:
        call: The request.
        timeout: Seconds that all of it may take, with its pauses.
        now: The time in seconds.

    Raises:
        ClientError: If there is none, or it says why not. The last one, where a pause would end too late.
    """
    deadline = now() + timeout
    tries = 0
    last: ClientError | None = None
    while (left := deadline - now()) > 0:
        came = yield Send(left, {"X-Request-Timeout": _milliseconds(left)})
        if isinstance(came, Came) and came.status == 200:
            return call.read(came.body)
        if isinstance(came, NoAnswerError):
            break
        last = read_problem(*came) if isinstance(came, Came) else came
        assert last is not None  # a request has an answer, or an error  # noqa: S101
        pause = pause_after(last, tries)
        if pause is None or now() + pause >= deadline:
            raise _placed(last, call.rows)
        yield Pause(pause)
        tries += 1
    why = f"; before that: {last}" if last else ""
    error = NoAnswerError(f"no answer to {call.method} {call.path} within {timeout:g} s{why}")
    raise _placed(error, call.rows)


def pause_after(error: ClientError, tries: int) -> float | None:
    """Returns the seconds after which a request is sent again, drawn a little at random; ``None`` for never.

    Args:
        error: What came of it.
        tries: How often it was sent again already.
    """
    if not may_pass(error):
        return None
    drawn = random.random()  # noqa: S311  nobody has to guess it
    said = error.retry_after if isinstance(error, Problem | UnexpectedAnswerError) else None
    if said is not None:
        return max(said, FIRST_PAUSE_S) * (1 + LATER * drawn)
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tries, 10)) * (1 + drawn) / 2)


def may_pass(error: ClientError) -> bool:
    """Whether the same request may have an answer later."""
    if isinstance(error, Problem):
        return error.status in {TOO_MANY_REQUESTS, UNAVAILABLE}
    if isinstance(error, UnexpectedAnswerError):  # of a proxy
        return error.status in {TOO_MANY_REQUESTS, BAD_GATEWAY, UNAVAILABLE, GATEWAY_TIMEOUT}
    return isinstance(error, UnreachableError)


def _milliseconds(left: float) -> str:
    least = left - min(EARLIER_S, EARLIER * left)
    return str(min(max(int(least * 1000), 1), LONGEST_TIMEOUT_MS))


def _placed(error: ClientError, rows: range | None) -> ClientError:
    """Returns an error that says which of all rows it is about."""
    if rows is None:
        return error
    if isinstance(error, Problem):
        error = error.moved(rows.start)
    error.add_note(f"this is about the request with the rows {rows.start} to {rows.stop - 1}, counted from 0")
    return error
