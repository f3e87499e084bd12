"""What can go wrong between a caller and the service: one class for each problem that a caller acts on.

The service answers with a problem document (RFC 9457), which becomes the class of its type. Names, types and
statuses are those of ``rollout.errors``.
"""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import msgspec

TYPE_PREFIX = "urn:rollout:problem:"
# Of an answer; rows that have more together go in smaller batches.
MOST_BYTES = 256 * 1024 * 1024
SHOWN = 300  # characters of an answer that is no problem document
PLACE = re.compile(r"(/(?:instances|outcomes)/)([0-9]{1,15})(?![0-9])")
TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")


class ClientError(Exception):
    """Base of everything that goes wrong between a caller and the service."""


class UnreachableError(ClientError):
    """The service did not answer: there is no connection, or it broke."""


class NoAnswerError(ClientError, TimeoutError):
    """No answer came within the caller's own timeout."""


class UnexpectedAnswerError(ClientError):
    """What answered is no Rollout service that this client knows; a proxy in front of one, perhaps.

    Args:
        status: Of HTTP.
        text: The beginning of the answer.
        retry_after: Seconds after which to come back, if the answer says so.
    """

    def __init__(self, status: int, text: str, retry_after: float | None = None) -> None:
        super().__init__(status, text, retry_after)
        self.status, self.text, self.retry_after = status, text, retry_after

    def __str__(self) -> str:
        return f"an answer with status {self.status} that no Rollout service gives: {self.text or 'it is empty'}"


class Fault(NamedTuple):
    """One fault in a request.

    Attributes:
        pointer: JSON pointer to the faulty value, such as ``/instances/3/inputs/image``.
        detail: What is wrong and what would be right.
    """

    pointer: str
    detail: str


class Problem(ClientError):  # noqa: N818  as RFC 9457 calls it
    """The service refused or failed, and says why.

    Args:
        document: The problem document.
        trace_id: The trace of the request, to find it in the service's log; empty without one.
        retry_after: Seconds after which to come back, if the service says so.
    """

    type: ClassVar[str] = ""

    def __init__(self, document: Mapping[str, Any], trace_id: str = "", retry_after: float | None = None) -> None:
        super().__init__(document, trace_id, retry_after)
        self.document = dict(document)
        self.trace_id, self.retry_after = trace_id, retry_after

    def __str__(self) -> str:
        kind = str(self.document.get("type", "")).removeprefix(TYPE_PREFIX)
        trace = f" (trace {self.trace_id})" if self.trace_id else ""
        return f"{self.status} {kind}: {self.detail}{trace}"

    @property
    def status(self) -> int:
        """Status of HTTP."""
        return int(self.document["status"])

    @property
    def title(self) -> str:
        """What problems of this type are about."""
        return str(self.document.get("title", ""))

    @property
    def detail(self) -> str:
        """What happened to this request, and what to do about it."""
        return str(self.document.get("detail") or self.title)

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The faults one by one, where fields are at fault."""
        return tuple(
            Fault(str(one.get("pointer", "")).removeprefix("#"), str(one.get("detail", "")))
            for one in self.document.get("errors") or ()
        )

    def moved(self, first: int) -> Problem:
        """Returns the same for rows that were sent as a part of more, with pointers into all of them.

        Args:
            first: The number that the first of the rows has among all.
        """

        def move(text: str) -> str:
            return PLACE.sub(lambda found: f"{found[1]}{int(found[2]) + first}", text)

        document = self.document | {"detail": move(self.detail)}
        if self.document.get("errors"):
            document["errors"] = [
                one | {"pointer": move(str(one.get("pointer", "")))} for one in document["errors"]
            ]
        return type(self)(document, self.trace_id, self.retry_after)


class MalformedBodyError(Problem):
    """The body is not what its headers say (400)."""

    type = "malformed-body"


class UnauthorizedError(Problem):
    """A valid token is required (401)."""

    type = "unauthorized"


class ForbiddenError(Problem):
    """The token's role does not allow this (403)."""

    type = "forbidden"


class UnknownModelError(Problem):
    """No such model is being served (404)."""

    type = "unknown-model"


class OutcomeConflictError(Problem):
    """Another outcome was reported before, which stays (409)."""

    type = "outcome-conflict"


class BodyTooLargeError(Problem):
    """The body is larger than the limit: send fewer rows at a time, or smaller files (413)."""

    type = "body-too-large"


class InvalidRequestError(Problem):
    """The request does not fit what the model takes; ``errors`` says where (422)."""

    type = "invalid-request"


class PredictionFailedError(Problem):
    """The model could not score this input (500)."""

    type = "prediction-failed"


class ExplainUnavailableError(Problem):
    """This service cannot explain predictions (501)."""

    type = "explain-unavailable"


class OverloadedError(Problem):
    """The service has more work than it can finish in time, or starts or stops (503)."""

    type = "overloaded"


class DeadlineExceededError(Problem, TimeoutError):
    """The service could not answer within the timeout (503)."""

    type = "deadline-exceeded"


class StoreUnavailableError(Problem):
    """The service's Redis does not answer (503)."""

    type = "store-unavailable"


class ExplainTimeoutError(Problem, TimeoutError):
    """The explanation took longer than it may (504)."""

    type = "explain-timeout"


PROBLEMS: Mapping[str, type[Problem]] = {kind.type: kind for kind in Problem.__subclasses__()}


def read_problem(status: int, headers: Mapping[str, str], body: bytes) -> Problem | UnexpectedAnswerError:
    """Returns what an answer that is not 200 says.

    Args:
        status: Of HTTP.
        headers: Of the answer, whose names are looked up in lower case.
        body: All of it.
    """
    retry_after = read_retry_after(headers.get("retry-after", ""))
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
        known = str(document["type"]).startswith(TYPE_PREFIX) and isinstance(document["status"], int)
        msgspec.convert(document.get("errors") or [], list[dict[str, Any]])
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, UnicodeDecodeError, RecursionError):
        known = False
    if not known:
        return UnexpectedAnswerError(status, beginning(body), retry_after)
    kind = PROBLEMS.get(document["type"].removeprefix(TYPE_PREFIX), Problem)
    trace = TRACE.match(headers.get("traceparent", ""))
    return kind(document, trace[1] if trace else "", retry_after)


def beginning(body: bytes) -> str:
    """Returns the beginning of an answer that may be anybody's, as a terminal may have it."""
    text = body[: 4 * SHOWN].decode("utf-8", "replace")[:SHOWN]
    return "".join(sign if sign.isprintable() else " " for sign in text)


def too_large(status: int) -> UnexpectedAnswerError:
    """Returns the error of an answer that is not read to its end."""
    return UnexpectedAnswerError(status, f"it has more than {MOST_BYTES:,} bytes; send smaller batches")


def read_retry_after(header: str) -> float | None:
    """Returns the seconds that ``Retry-After`` says, as a number or as a date; ``None`` where it says none."""
    if header.isascii() and header.isdecimal():
        return float(header)
    try:
        date = email.utils.parsedate_to_datetime(header)
    except (ValueError, OverflowError):  # of a year or a zone that there is not
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())
