"""The way of a request through the server: uvicorn's protocol, with a shorter one for predictions.

What most requests are, a POST with its length that fits into memory, needs no events between the parser and the
application and no task that waits for its body: it is handed over whole, and its answer is written at once.
Everything else goes the way that it goes in uvicorn.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.types import Message, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

QUICK_PATHS = (b"/predict", b"/infer")
QUICK_BYTES = 1024 * 1024
STREAM = b"application/x-ndjson"

logger = logging.getLogger(__name__)


class PredictProtocol(HttpToolsProtocol):
    """Parses requests, starts the application for each, and writes the answers."""

    _quick: _Exchange | None = None

    def on_headers_complete(self) -> None:
        """Decides which way the request goes; called by the parser."""
        self._quick = None
        if self._is_quick():
            scope: Scope = self.scope  # type: ignore[assignment]  # it is filled in here
            scope.update(method="POST", path=self.url.decode("ascii"), raw_path=self.url, query_string=b"")
            self._quick = _Exchange(self, scope)
            self.cycle = self._quick  # type: ignore[assignment]  # has what uvicorn uses of it
        else:
            super().on_headers_complete()
        if self.app_state["api"].is_draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Takes a piece of the body; called by the parser."""
        if self._quick is None:
            super().on_body(body)
        else:
            self._quick.body.append(body)

    def on_message_complete(self) -> None:
        """Starts the application, now that the request is complete; called by the parser."""
        if self._quick is None:
            super().on_message_complete()
            return
        task = self.loop.create_task(self._quick.run(self.app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _is_quick(self) -> bool:
        if not self.url.endswith(QUICK_PATHS) or b"?" in self.url or b"%" in self.url:
            return False
        if self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return False
        if self.expect_100_continue or not (self.cycle is None or self.cycle.response_complete):
            return False
        headers = dict(self.headers)
        return (
            int(headers.get(b"content-length", QUICK_BYTES + 1)) <= QUICK_BYTES
            and b"transfer-encoding" not in headers
            and b"upgrade" not in headers
            and STREAM not in headers.get(b"content-type", b"").lower()
        )


class _Nobody:
    """Stands where uvicorn keeps an event that wakes those who wait for a body."""

    def set(self) -> None:
        """Nobody waits."""


class _Exchange:
    """One request that is in memory, and its answer; with the attributes that uvicorn looks at."""

    message_event = _Nobody()

    def __init__(self, protocol: PredictProtocol, scope: Scope) -> None:
        self._protocol = protocol
        self._scope = scope
        self._head = b""
        self._answer: list[bytes] = []
        self.body: list[bytes] = []
        self.keep_alive: bool = protocol.parser.should_keep_alive()
        self.disconnected = self.response_complete = self._received = False

    async def run(self, app: Any) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except Exception:
            logger.exception("%s failed", self._scope["path"])
        if not self.response_complete:
            self._protocol.transport.close()

    async def _receive(self) -> Message:
        if self.disconnected or self._received:
            return {"type": "http.disconnect"}
        self._received = True
        return {"type": "http.request", "body": b"".join(self.body), "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*self._protocol.server_state.default_headers, *message["headers"]]
            lines = [name + b": " + value + b"\r\n" for name, value in headers if name != b"content-length"]
            self._head = STATUS_LINE[message["status"]] + b"".join(lines)
            return
        self._answer.append(message["body"])
        if message.get("more_body") or self.disconnected:
            return
        body = b"".join(self._answer)
        close = b"" if self.keep_alive else b"connection: close\r\n"
        self._protocol.transport.write(b"%bcontent-length: %d\r\n%b\r\n%b" % (self._head, len(body), close, body))
        self.response_complete = True
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()
