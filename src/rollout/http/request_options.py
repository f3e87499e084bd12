"""What the headers of a request ask for, in any protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rollout.errors import InvalidRequestError
from rollout.inference.rows import Preview

LONGEST_SEGMENT = 128


class RequestOptions(NamedTuple):
    """What the headers of a request ask for.

    Attributes:
        timeout_ms: The caller's own deadline in milliseconds.
        segment: What the caller says the clients belong to.
        preview: The arm that an admin wants to see.
        traceparent: The trace that the request belongs to (W3C Trace Context).
    """

    timeout_ms: int | None = None
    segment: str = ""
    preview: Preview | None = None
    traceparent: str | None = None

    def with_header(self, name: bytes, value: bytes) -> RequestOptions:
        """Returns this with what one of ``HEADERS`` asks for.

        Raises:
            InvalidRequestError: If its value does not fit.
        """
        field, parse = HEADERS[name]
        return self._replace(**{field: parse(value)})


DEFAULTS = RequestOptions()


def parse_timeout(header: bytes) -> int:
    """Reads ``X-Request-Timeout``, in milliseconds.

    Raises:
        InvalidRequestError: If it is not a whole number from 1 to 600,000.
    """
    if header.isdigit() and len(header) <= 6 and 1 <= int(header) <= 600_000:
        return int(header)
    raise InvalidRequestError("X-Request-Timeout must be a whole number of milliseconds from 1 to 600000")


def parse_segment(header: bytes) -> str:
    """Reads ``X-Client-Segment``.

    Raises:
        InvalidRequestError: If it is not 1 to 128 printable characters.
    """
    segment = header.decode("utf-8", "surrogateescape")  # what is no UTF-8 is not printable
    if 1 <= len(segment) <= LONGEST_SEGMENT and segment.isprintable():
        return segment
    raise InvalidRequestError(f"X-Client-Segment must be 1 to {LONGEST_SEGMENT} printable characters")


def parse_preview(header: bytes) -> Preview:
    """Reads ``X-Rollout-Arm``.

    Raises:
        InvalidRequestError: If it is not an arm that can be looked at.
    """
    if header == b"champion":
        return "champion"
    if header == b"challenger":
        return "challenger"
    raise InvalidRequestError("X-Rollout-Arm must be champion or challenger")


HEADERS: Mapping[bytes, tuple[str, Callable[[bytes], Any]]] = {
    b"x-request-timeout": ("timeout_ms", parse_timeout),
    b"x-client-segment": ("segment", parse_segment),
    b"x-rollout-arm": ("preview", parse_preview),
}
