"""A request of a thread ends in time, however its answer comes: httpx bounds each wait, and not their number."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

# What is sent at a time, in bytes: a socket takes as much in a wait or two.
PIECE_BYTES = 64 * 1024
NEW_STREAMS = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")

_own = threading.local()


def begin(seconds: float) -> None:
    """Notes when the request that this thread sends next has to be over."""
    _own.give_up = time.monotonic() + seconds


def hold_deadlines(event: str, info: Mapping[str, Any]) -> None:
    """Makes each new connection go by what ``begin`` noted; for ``trace``, an extension of httpx's requests."""
    if event.endswith(NEW_STREAMS):
        stream = info["return_value"]
        stream.read, stream.write = _reading(stream.read), _writing(stream.write)


def _reading(read: Callable[..., bytes]) -> Callable[..., bytes]:
    return lambda most, timeout=None: read(most, timeout=_left(httpx.ReadTimeout))  # noqa: ARG005


def _writing(write: Callable[..., None]) -> Callable[..., None]:
    def write_in_time(buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG001
        for start in range(0, len(buffer), PIECE_BYTES):
            write(buffer[start : start + PIECE_BYTES], timeout=_left(httpx.WriteTimeout))

    return write_in_time


def _left(late: type[httpx.TimeoutException]) -> float:
    """Returns the seconds that one wait may take."""
    left: float = _own.give_up - time.monotonic()
    if left <= 0:
        raise late("the deadline passed")
    return left
