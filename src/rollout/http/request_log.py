"""A line in the log for a request, and the trace that it belongs to."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace, span of the caller, flags.
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?"
)
HEADER = b"traceparent"

logger = logging.getLogger("rollout.http.requests")

# Is told of every request and its status once it is answered: where traces are wanted, see rollout.telemetry.
ended: Callable[[Mapping[str, Any], int], None] | None = None


def begin(scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes]) -> None:
    """Notes when a request came, and gives it a span in the trace that its caller or we began."""
    scope["started"] = time.perf_counter()
    scope["traceparent"] = continue_trace(headers.get(HEADER))


def continue_trace(header: bytes | None) -> bytes:
    """Returns a ``traceparent`` with a span of ours: in the trace that came, or in a new one if none did.

    Args:
        header: The value that came; one that is not valid counts as none.
    """
    found = None if header is None else TRACEPARENT.fullmatch(header)
    if found is None:
        drawn = b"%048x" % random.getrandbits(192)
        return b"00-%b-%b-00" % (drawn[:32], drawn[32:])
    return b"00-%b-%016x-%b" % (found[1], random.getrandbits(64), found[2])


def end(scope: Mapping[str, Any], status: int, *, every: bool) -> None:
    """Writes the line of a request that failed, or of every one; and tells who records traces.

    Args:
        scope: Of ASGI, with what was found out about the request.
        status: Of the answer.
        every: Whether requests that were answered well are logged.
    """
    if ended is not None:
        ended(scope, status)
    if status < 400 and not every:
        return
    route = getattr(scope.get("matched"), "path", None) or "-"
    answers = scope.get("answers")
    fields: dict[str, Any] = {
        "method": scope.get("method", "-"),
        "route": route,
        "status": status,
        "duration_ms": round((time.perf_counter() - scope["started"]) * 1000, 2),
        "model": scope.get("model"),
        "arm": None if answers is None else ",".join(sorted({one.arm for one in answers.assignments})),
        "problem": scope.get("problem"),
        "traceparent": scope["traceparent"].decode(),
    }
    level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
    message = "{method} {route} {status} in {duration_ms} ms".format_map(fields)
    more = (f"{name} {fields[name]}" for name in ("model", "arm", "problem", "traceparent") if fields[name])
    logger.log(level, "%s", ", ".join((message, *more)), extra={"fields": fields})
