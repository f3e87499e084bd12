"""A prediction that is in memory, and its answer: no events between the parser and the application."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rollout.errors import RolloutError
from rollout.http.exchange import NO_SNIFFING
from rollout.http.problems import problem_response
from rollout.http.request_log import HEADER, end

logger = logging.getLogger(__name__)


class _NoEvent:
    """Stands where uvicorn keeps an event that wakes what waits for a body."""

    def set(self) -> None:
        """Wakes nothing."""


class QuickExchange:
    """One request that is in memory, and its answer; with the attributes that uvicorn looks at."""

    message_event = _NoEvent()
    arrived = 0.0  # when it was whole, of time.monotonic()

    def __init__(self, protocol: HttpToolsProtocol, scope: Scope, handler: ASGIApp) -> None:
        self._protocol = protocol
        self.scope = scope
        self._handler = handler
        self._head = b""
        self._status = 500
        self._access_log: bool = protocol.app_state["gateway"].settings.access_log
        self._answer: list[bytes] = []
        self.body: list[bytes] = []
        self.more_body = True
        self.keep_alive: bool = protocol.parser.should_keep_alive()
        self.disconnected = self.response_complete = self._received = False

    def start(self, work: Coroutine[Any, Any, None] | None = None) -> None:
        """Has the request answered by its handler; or does the work for it, and for others with it."""
        tasks = self._protocol.tasks
        task = self._protocol.loop.create_task(self.run() if work is None else work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def whole_body(self) -> bytes:
        """Returns the body, which is in memory."""
        return self.body[0] if len(self.body) == 1 else b"".join(self.body)

    def head(self, timing: bytes) -> bytes:
        """Returns the head that answers of one batch share; ``timing`` is the value of ``Server-Timing``."""
        return self._lines(200, [(b"content-type", b"application/json"), (b"server-timing", timing)])

    def answer(self, body: bytes, head: bytes) -> None:
        """Answers a prediction, with a head as ``head`` returns it."""
        self._status, self._head = 200, head
        self._finish(body)
        end(self.scope, 200, every=self._access_log)

    def refuse(self, error: RolloutError, model: str) -> None:
        """Answers with a problem document; ``model`` is the one that was asked."""
        response = problem_response(error, model)
        self.scope["problem"], self.scope["model"] = error.type, model
        self._begin(response.status_code, response.raw_headers)
        self._finish(bytes(response.body))
        end(self.scope, error.status, every=self._access_log)

    def close(self) -> None:
        """Closes the connection."""
        self._protocol.transport.close()

    async def run(self) -> None:
        """Has the request answered by its handler."""
        try:
            await self._handler(self.scope, self._receive, self._send)
        except Exception:
            logger.exception("%s failed", self.scope["path"])
        if not self.response_complete:
            self._protocol.transport.close()
        end(self.scope, self._status, every=self._access_log)

    async def _receive(self) -> Message:
        if self.disconnected or self._received:
            return {"type": "http.disconnect"}
        self._received = True
        return {"type": "http.request", "body": self.whole_body(), "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
            return
        self._answer.append(message["body"])
        if not message.get("more_body"):
            self._finish(b"".join(self._answer))

    def _begin(self, status: int, more: Iterable[tuple[bytes, bytes]]) -> None:
        self._status, self._head = status, self._lines(status, more)

    def _lines(self, status: int, more: Iterable[tuple[bytes, bytes]]) -> bytes:
        headers = [*self._protocol.server_state.default_headers, *more, NO_SNIFFING]
        lines = [b"%b: %b\r\n" % header for header in headers if header[0] != b"content-length"]
        return STATUS_LINE[status] + b"".join(lines)

    def _finish(self, body: bytes) -> None:
        if self.disconnected:
            return
        close = b"" if self.keep_alive else b"connection: close\r\n"
        own = HEADER, self.scope["traceparent"], len(body), close, body
        self._protocol.transport.write(b"%b%b: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (self._head, *own))
        self.response_complete = True
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()
