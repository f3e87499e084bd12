"""A prediction that is in memory, and its answer: no events between the parser and the application."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rollout.http.exchange import NO_SNIFFING
from rollout.http.request_log import HEADER, end

logger = logging.getLogger(__name__)


class _NoEvent:
    """Stands where uvicorn keeps an event that wakes what waits for a body."""

    def set(self) -> None:
        """Wakes nothing."""


class QuickExchange:
    """One request that is in memory, and its answer; with the attributes that uvicorn looks at."""

    message_event = _NoEvent()

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

    async def run(self) -> None:
        """Has the request answered."""
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
        return {"type": "http.request", "body": b"".join(self.body), "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            trace = (HEADER, self.scope["traceparent"])
            headers = [*self._protocol.server_state.default_headers, *message["headers"], NO_SNIFFING, trace]
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
