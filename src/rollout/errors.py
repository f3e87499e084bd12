"""Every failure that Rollout reports: one class a row, with its HTTP status and problem type.

An error reaches an HTTP caller as an RFC 9457 problem document, and a terminal user as one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import ClassVar, NamedTuple, Self

import msgspec

# What decoding JSON raises where it is none, or is nested too deeply to be read.
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# An answer says no more about what is wrong: so many faults, of so many characters each.
MOST_ERRORS = 1024
LONGEST_TEXT = 300


class FieldError(NamedTuple):
    """One fault in a request body.

    Attributes:
        pointer: JSON pointer to the faulty value, such as ``/instances/3/inputs/image``.
        detail: What is wrong and what would be right.
    """

    pointer: str
    detail: str


def step_to(name: str) -> str:
    """Returns the step of a JSON pointer that leads to a member of this name (RFC 6901, section 3).

    Example:
        >>> step_to("a/b~c")
        '/a~1b~0c'
    """
    return f"/{name.replace('~', '~0').replace('/', '~1')}"


class RolloutError(Exception):
    """Base of all errors that Rollout raises on purpose.

    Args:
        detail: What happened to this request or command, and what to do about it.
        errors: The faults one by one, where there are several.
        headers: HTTP headers that belong to the answer, such as ``Retry-After``.

    Attributes:
        client_id: The client whose inputs are refused, where that is known.
    """

    client_id = ""
    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Something failed inside the service"

    def __init__(
        self, detail: str, *, errors: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def alone(self) -> Self:
        """Returns the error without where it was raised, for whoever keeps it in a variable.

        That keeps the frames that it went through and what is in them, such as a body; of these frames one holds
        the error again, and so nothing of it is freed before the garbage collector comes, which may take long.
        """
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self


class MalformedBodyError(RolloutError):
    status, type, title = 400, "malformed-body", "The body is not what its headers say"


class MalformedRequestError(RolloutError):
    status, type, title = 400, "malformed-request", "The request is not valid HTTP"


class UnauthorizedError(RolloutError):
    status, type, title = 401, "unauthorized", "A valid token is required"


class ForbiddenError(RolloutError):
    status, type, title = 403, "forbidden", "The token's role does not allow this"


class NotFoundError(RolloutError):
    status, type, title = 404, "not-found", "There is nothing at this address"


class UnknownModelError(RolloutError):
    status, type, title = 404, "unknown-model", "No such model is being served"


class UnknownItemError(RolloutError):
    status, type, title = 404, "unknown-item", "The review queue has no such item"


class MethodNotAllowedError(RolloutError):
    status, type, title = 405, "method-not-allowed", "This address does not take this method"


class RequestTimeoutError(RolloutError):
    status, type, title = 408, "request-timeout", "The request did not come in time"


class QuarantinedError(RolloutError):
    status, type, title = 409, "quarantined", "This version was rolled back"


class LeaseLostError(RolloutError):
    status, type, title = 409, "lease-lost", "Another reviewer may have this review item by now"


class OutcomeConflictError(RolloutError):
    status, type, title = 409, "outcome-conflict", "Another outcome was reported before"


class SplitConflictError(RolloutError):
    status, type, title = 412, "split-conflict", "The split was changed concurrently"


class BodyTooLargeError(RolloutError):
    status, type, title = 413, "body-too-large", "The body is larger than the limit"


class UnsupportedMediaTypeError(RolloutError):
    status, type, title = 415, "unsupported-media-type", "The body is not in a form that is taken here"


class MisdirectedRequestError(RolloutError):
    status, type, title = 421, "misdirected-request", "The request is for another host"


class InvalidRequestError(RolloutError):
    status, type, title = 422, "invalid-request", "The request does not fit what the model takes"


class InvalidSplitError(RolloutError):
    status, type, title = 422, "invalid-split", "This split cannot be served"


class PreconditionRequiredError(RolloutError):
    status, type, title = 428, "precondition-required", "A change must say what it is based on"


class HeadersTooLargeError(RolloutError):
    status, type, title = 431, "headers-too-large", "The headers are larger than the limit"


class PredictionFailedError(RolloutError):
    status, type, title = 500, "prediction-failed", "The model could not score this input"


class ExplainUnavailableError(RolloutError):
    status, type, title = 501, "explain-unavailable", "This service cannot explain predictions"


class OverloadedError(RolloutError):
    status, type, title = 503, "overloaded", "The service has more work than it can finish in time"


class DeadlineExceededError(RolloutError):
    status, type, title = 503, "deadline-exceeded", "The request could not be answered within its deadline"


class StoreUnavailableError(RolloutError):
    status, type, title = 503, "store-unavailable", "Redis does not answer"


class StoredValueError(StoreUnavailableError):
    """What lies under a key in Redis is not what Rollout writes there."""


class ExplainTimeoutError(RolloutError):
    status, type, title = 504, "explain-timeout", "The explanation took longer than it may"


class ConfigError(RolloutError):
    """A setting, a command line or the machine does not allow this command."""


class BundleError(RolloutError):
    """A bundle cannot be packed, or is refused because it does not hold what it promises."""


class MissingBundleError(BundleError):
    """The store does not have this bundle; it may get it."""


class StorageError(ConfigError):
    """Where bundles are kept for others does not answer, does not exist or may not be used."""


HTTP_ERRORS: tuple[type[RolloutError], ...] = (
    RolloutError,
    MalformedBodyError,
    MalformedRequestError,
    UnauthorizedError,
    ForbiddenError,
    NotFoundError,
    UnknownModelError,
    UnknownItemError,
    MethodNotAllowedError,
    RequestTimeoutError,
    QuarantinedError,
    LeaseLostError,
    OutcomeConflictError,
    SplitConflictError,
    BodyTooLargeError,
    UnsupportedMediaTypeError,
    MisdirectedRequestError,
    InvalidRequestError,
    InvalidSplitError,
    PreconditionRequiredError,
    HeadersTooLargeError,
    PredictionFailedError,
    ExplainUnavailableError,
    OverloadedError,
    DeadlineExceededError,
    StoreUnavailableError,
    ExplainTimeoutError,
)


def invalid(errors: Sequence[FieldError], client_id: str = "") -> InvalidRequestError:
    """Returns the error that names these faults: the first of them, and of long texts the beginning.

    Args:
        errors: The faults.
        client_id: The client whose inputs they are in.
    """
    named = [FieldError(_short(pointer), _short(detail)) for pointer, detail in errors[:MOST_ERRORS]]
    shown = "; ".join(f"{pointer or 'the body'} {detail}" for pointer, detail in named[:3])
    least = "more than " if len(errors) > MOST_ERRORS else ""  # of which no more may have been looked for
    more = f"; and {least}{min(len(errors), MOST_ERRORS) - 3} more" if len(errors) > 3 else ""
    error = InvalidRequestError(shown + more, errors=named)
    error.client_id = client_id
    return error


def require_none(faults: Iterable[FieldError]) -> None:
    """Refuses what has faults, and looks for no more of them than an answer names.

    Raises:
        InvalidRequestError: If there are any.
    """
    found = list(islice(faults, MOST_ERRORS + 1))
    if found:
        raise invalid(found)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
