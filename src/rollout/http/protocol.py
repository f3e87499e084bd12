"""HTTP/1.1 on a connection: uvicorn's protocol, with bounds, and with a shorter way for predictions.

What most requests are, a POST with its length that fits into memory, needs no events between the parser and the
application and no task that waits for its body: it is handed over whole, and its answer is written at once.
Everything else goes the way that it goes in uvicorn.
"""

from __future__ import annotations

import logging

import httptools
import msgspec
from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rollout.errors import HeadersTooLargeError, MalformedRequestError, RolloutError
from rollout.http.exchange import NO_SNIFFING
from rollout.http.problems import MEDIA_TYPE, problem_document
from rollout.http.request_log import HEADER, begin, end

QUICK_BYTES = 1024 * 1024
# The request line and the headers, in bytes, and how many headers.
HEAD_BYTES = 64 * 1024
MOST_HEADERS = 100
# After the answer to what cannot be parsed, so many bytes and seconds are left to the client to read it.
LINGER_BYTES = 1024 * 1024
LINGER_S = 2.0
# A worker that stops leaves a connection whose client takes nothing for so long, in seconds.
STALLED_S = 2.0

logger = logging.getLogger(__name__)


class PredictProtocol(HttpToolsProtocol):
    """Parses requests, starts the application for each, and writes the answers."""

    _quick: _Exchange | None = None
    _head_size = 0  # of the request line and the headers, as parsed
    _head_received = 0  # the same, as received: one that never ends is parsed never
    _is_in_head = False
    _is_half_closed = False
    _lingers = False
    _linger_left = LINGER_BYTES
    _fault: RolloutError | None = None

    def data_received(self, data: bytes) -> None:
        """Takes what the client sent; called by the transport."""
        if self._lingers:
            self._linger_left -= len(data)
            if self._linger_left < 0:
                self.transport.close()
            return
        super().data_received(data)
        if self._is_in_head and not self._lingers:
            self._head_received += len(data)
            if self._head_received > HEAD_BYTES:
                self._fault = _too_large()
                self.send_400_response("")

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answers what was asked before the client closed its side; called by the transport."""
        if self.cycle is None or self.cycle.response_complete or not self._is_whole():
            return None
        self._is_half_closed = True
        return True

    def on_message_begin(self) -> None:
        """Begins a request; called by the parser."""
        self._is_in_head = True
        self._head_size = self._head_received = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Takes a part of the target; called by the parser."""
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header; called by the parser."""
        self._measure(len(name) + len(value))
        super().on_header(name, value)
        if len(self.headers) > MOST_HEADERS:
            self._measure(HEAD_BYTES)

    def on_headers_complete(self) -> None:
        """Decides which way the request goes; called by the parser."""
        self._is_in_head = False
        self._quick = None
        if not self.url.startswith(b"/"):
            self._to_origin_form()
        handler = self._quick_handler()
        if handler is not None:
            self._quick = _Exchange(self, self.scope, handler)  # type: ignore[arg-type]
            self.cycle = self._quick  # type: ignore[assignment]  # has what uvicorn uses of it
        else:
            super().on_headers_complete()
        gateway = self.app_state.get("gateway")  # another application in this process has none
        if gateway is not None and gateway.is_draining:
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
        self._quick.more_body = False
        task = self.loop.create_task(self._quick.run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        """Goes on to the next request, or closes behind a client that sends no more."""
        super().on_response_complete()
        if self._is_half_closed and not self.pipeline and self.cycle.response_complete:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuses what cannot be parsed, and leaves the client time to read that."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._is_half_closed = True  # what was asked before is answered first
            self._lingers = True
            return
        fault = self._fault or MalformedRequestError("this is not HTTP/1.1: send the request with an HTTP client")
        body = msgspec.json.encode(problem_document(fault))
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (STATUS_LINE[fault.status], MEDIA_TYPE.encode(), len(body)) + body)
        self._lingers = True
        self.loop.call_later(LINGER_S, self.transport.close)

    def shutdown(self) -> None:
        """Ends the connection once it is idle; called when the worker stops."""
        super().shutdown()
        self._leave_if_stalled(0)

    def _leave_if_stalled(self, unsent_before: int) -> None:
        """Aborts a connection whose client reads nothing of what is written."""
        if self not in self.connections:  # it is closed
            return
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent == unsent_before:
            self.transport.abort()
        else:
            self.loop.call_later(STALLED_S, self._leave_if_stalled, unsent)

    def _measure(self, size: int) -> None:
        self._head_size += size
        if self._head_size > HEAD_BYTES:
            self._fault = _too_large()
            raise self._fault  # the parser passes on that there is one

    def _is_whole(self) -> bool:
        """Whether all of the last request has come."""
        return not self._is_in_head and not self.cycle.more_body

    def _to_origin_form(self) -> None:
        """Makes ``POST http://host/path`` what ``POST /path`` to that host is (RFC 9112, section 3.2.2)."""
        target = httptools.parse_url(self.url)
        if not target.schema or not target.host:
            raise MalformedRequestError("the target is neither a path nor a URL")
        port = b"" if target.port is None else b":%d" % target.port
        host = b"[%b]" % target.host if b":" in target.host else target.host
        self.headers[:] = [header for header in self.headers if header[0] != b"host"]
        self.headers.append((b"host", host + port))
        self.url = (target.path or b"/") + (b"" if target.query is None else b"?" + target.query)

    def _quick_handler(self) -> ASGIApp | None:
        """Returns what answers the request if it goes the short way, and may."""
        if b"?" in self.url or b"%" in self.url:
            return None
        if self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return None
        if self.expect_100_continue or not (self.cycle is None or self.cycle.response_complete):
            return None
        headers = dict(self.headers)
        if (
            int(headers.get(b"content-length", QUICK_BYTES + 1)) > QUICK_BYTES
            or b"transfer-encoding" in headers
            or b"upgrade" in headers
        ):
            return None
        scope: Scope = self.scope  # type: ignore[assignment]  # it is filled in here
        scope.update(method="POST", path=self.url.decode("ascii"), raw_path=self.url, query_string=b"")
        gateway = self.app_state.get("gateway")
        handler: ASGIApp | None = None if gateway is None else gateway.quick(scope, headers)
        if handler is not None:
            begin(scope, headers)
        return handler


class _NoEvent:
    """Stands where uvicorn keeps an event that wakes what waits for a body."""

    def set(self) -> None:
        """Wakes nothing."""


class _Exchange:
    """One request that is in memory, and its answer; with the attributes that uvicorn looks at."""

    message_event = _NoEvent()

    def __init__(self, protocol: PredictProtocol, scope: Scope, handler: ASGIApp) -> None:
        self._protocol = protocol
        self._scope = scope
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
        try:
            await self._handler(self._scope, self._receive, self._send)
        except Exception:
            logger.exception("%s failed", self._scope["path"])
        if not self.response_complete:
            self._protocol.transport.close()
        end(self._scope, self._status, every=self._access_log)

    async def _receive(self) -> Message:
        if self.disconnected or self._received:
            return {"type": "http.disconnect"}
        self._received = True
        return {"type": "http.request", "body": b"".join(self.body), "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            trace = (HEADER, self._scope["traceparent"])
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


def _too_large() -> HeadersTooLargeError:
    return HeadersTooLargeError(
        f"at most {MOST_HEADERS} headers of {HEAD_BYTES:,} bytes together with the target are taken: send fewer"
    )
