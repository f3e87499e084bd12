"""HTTP/1.1 on a connection: uvicorn's protocol, with bounds, and with a shorter way for predictions.

What most requests are, a POST with its length that fits into memory, needs no events between the parser and the
application and no task that waits for its body: it is handed over whole, and its answer is written at once.
Everything else goes the way that it goes in uvicorn.

Of a connection, one request at a time is parsed: what comes behind it waits as it came, and nothing more is read
before the client has taken its answer.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any, NoReturn

import httptools
import msgspec
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rollout.config import Settings
from rollout.errors import (
    HeadersTooLargeError,
    MalformedRequestError,
    OverloadedError,
    RequestTimeoutError,
    RolloutError,
)
from rollout.http.exchange import NO_SNIFFING
from rollout.http.patience import Sweep
from rollout.http.problems import MEDIA_TYPE, problem_document
from rollout.http.quick import QuickExchange
from rollout.http.request_log import begin

QUICK_BYTES = 1024 * 1024
MOST_HEADERS = 100
EMPTY_LINE = b"\r\n"
END_OF_HEAD = EMPTY_LINE * 2
# No request is shorter: a step of so many bytes completes one at most.
STEP_BYTES = 9
# After the answer to what cannot be parsed, so many bytes and seconds are left to the client to read it.
LINGER_BYTES = 1024 * 1024
LINGER_S = 2.0
# A worker that stops leaves a connection whose client takes nothing for so long, in seconds.
STALLED_S = 2.0

logger = logging.getLogger("rollout.http")


class PredictProtocol(HttpToolsProtocol):
    """Parses requests, starts the application for each, and writes the answers."""

    _quick: QuickExchange | None = None
    _settings = Settings()
    _held = b""  # what came behind a request that is not answered yet
    _head_size = 0  # of the request line and the headers, as parsed
    _framing = 0  # what came since the last piece of a body: a header or trailer that never ends is parsed never
    _has_body_come = False  # in what is being parsed
    _body_left: int | None = 0  # bytes of the body that are to come; of a chunked one nobody knows
    _is_in_head = False
    _is_whole = False  # the request that came last, whether or not another has begun
    _is_by_hand = False  # the parser takes what follows an Upgrade for another protocol: the body is left to us
    _is_half_closed = False
    _lingers = False
    _linger_left = LINGER_BYTES
    _fault: RolloutError | None = None
    _moved = 0.0  # when something last came or went
    _head_began = 0.0
    _unsent = 0  # bytes that the client had not taken when it was last looked at

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection, or refuses it where there are too many; called by the transport."""
        super().connection_made(transport)
        self._moved = self.loop.time()
        # The next request of a connection begins in this, not in what the one before it left behind.
        self._context = contextvars.copy_context()
        gateway = self.app_state.get("gateway")  # another application in this process has none
        if gateway is not None:
            self._settings = gateway.settings
        self._sweep().start()
        if len(self.connections) > self._settings.max_connections:
            logger.warning("more than %d connections are open: new ones are refused", len(self.connections) - 1)
            detail = f"this worker has {self._settings.max_connections} connections open already: try again"
            self._refuse(OverloadedError(detail, headers={"Retry-After": "1"}))

    def data_received(self, data: bytes) -> None:
        """Takes what the client sent; called by the transport."""
        if self._lingers:
            self._linger_left -= len(data)
            if self._linger_left < 0:
                self.transport.close()
            return
        if self._held or self._is_busy():
            self._hold(data)
        else:
            self._feed(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answers what was asked before the client closed its side; called by the transport."""
        if not (self._held or self._is_busy()):
            return None
        self._is_half_closed = True
        return True

    def on_message_begin(self) -> None:
        """Begins a request; called by the parser."""
        self._is_in_head = True
        self._head_began = self.loop.time()
        self._head_size = self._framing = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Takes a part of the target; called by the parser."""
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header; called by the parser."""
        self._measure(len(name) + len(value))
        if not self._is_in_head:
            return  # a trailer, which nobody may take for what was checked (RFC 9110, section 6.5.1)
        super().on_header(name, value)
        if len(self.headers) > MOST_HEADERS:
            self._measure(self._settings.max_head_bytes)

    def on_headers_complete(self) -> None:
        """Decides which way the request goes; called by the parser."""
        self._is_in_head = self._is_whole = False
        self._quick = None
        headers = dict(self.headers)
        self._require_framing(headers)
        if not self.url.startswith(b"/"):
            self._to_origin_form()
            headers = dict(self.headers)
        self._body_left = None if b"transfer-encoding" in headers else int(headers.get(b"content-length", b"0"))
        handler = self._quick_handler(headers)
        if handler is not None:
            self._quick = QuickExchange(self, self.scope, handler)  # type: ignore[arg-type]
            self.cycle = self._quick  # type: ignore[assignment]  # has what uvicorn uses of it
        else:
            self.scope["has_hung_up"] = self._has_hung_up  # type: ignore[typeddict-unknown-key]
            super().on_headers_complete()
        self.scope["exchange"] = self.cycle  # type: ignore[typeddict-unknown-key]
        gateway = self.app_state.get("gateway")
        if gateway is not None and gateway.is_draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Takes a piece of the body; called by the parser."""
        self._has_body_come = True
        if self._body_left is not None:
            self._body_left -= len(body)
        if self._quick is None:
            super().on_body(body)
        else:
            self._quick.body.append(body)

    def on_message_complete(self) -> None:
        """Starts the application, now that the request is complete; called by the parser."""
        if self._body_left and not self._is_by_hand and self.parser.should_upgrade():
            self._is_by_hand = True
            return
        self._is_whole, self._is_by_hand = True, False
        if self._quick is None:
            super().on_message_complete()
            return
        self._quick.more_body = False
        turn = self._quick.scope.get("turn")
        if turn is None:
            self._quick.start()
        else:
            turn.add(self._quick)

    def on_response_complete(self) -> None:
        """Goes on to the next request, once the client takes what it asked for; called after the last byte."""
        self.server_state.total_requests += 1
        self.cycle.scope.pop("exchange", None)  # type: ignore[typeddict-item]  # each had a reference to the other
        self.cycle.scope.pop("has_hung_up", None)  # type: ignore[typeddict-item]
        if self.transport.is_closing():
            return
        self._moved = self.loop.time()
        if self.flow.write_paused:
            self.flow.pause_reading()
        else:
            self._context.run(self._go_on)

    def resume_writing(self) -> None:
        """Goes on, now that the client has taken most of its answer; called by the transport."""
        super().resume_writing()
        self._moved = self.loop.time()
        if self.cycle is not None and self.cycle.response_complete and not self.transport.is_closing():
            self._go_on()

    def send_400_response(self, msg: str) -> None:
        """Refuses what cannot be parsed, and leaves the client time to read that."""
        if self._is_busy():
            self._is_half_closed = self._lingers = True  # what was asked before is answered first
            return
        self._break_off(
            self._fault or MalformedRequestError("this is not HTTP/1.1: send the request with an HTTP client")
        )

    def shutdown(self) -> None:
        """Ends the connection once it is idle; called when the worker stops."""
        super().shutdown()
        self._leave_if_stalled(0)

    def check_patience(self, now: float) -> None:
        """Ends a connection whose client takes too long; called once a second."""
        settings, waited = self._settings, now - self._moved
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            if unsent != self._unsent:
                self._moved = now
            elif waited > settings.body_timeout_s:
                self.transport.abort()  # it takes nothing of its answer
            self._unsent = unsent
        elif self._lingers or self.transport.is_closing():
            return
        elif self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.more_body and not self.flow.read_paused and waited > settings.body_timeout_s:
                self._time_out(f"nothing more of the body came for {settings.body_timeout_s:g} s")
        elif self._is_in_head or self.cycle is None:
            if now - (self._head_began if self._is_in_head else self._moved) > settings.head_timeout_s:
                self._time_out(f"the headers did not come within {settings.head_timeout_s:g} s")
        elif waited > settings.idle_timeout_s:
            self.transport.close()

    def _sweep(self) -> Sweep:
        found: Any = self.app_state.get("sweep")
        if found is None or found.loop is not self.loop:
            found = self.app_state["sweep"] = Sweep(self.loop, self.connections)  # type: ignore[arg-type]
        sweep: Sweep = found
        return sweep

    def _is_busy(self) -> bool:
        """Whether a whole request waits for its answer."""
        return self._is_whole and not self.cycle.response_complete

    def _is_between(self) -> bool:
        """Whether the next request has not begun."""
        return not self._is_in_head and (self._is_whole or self.cycle is None)

    def _has_hung_up(self) -> bool:
        """Whether the client will send nothing more: it may have gone, or only wait for its answer."""
        return self._is_half_closed or self.transport.is_closing()

    def _is_in_chunks(self) -> bool:
        """Whether a body that has no length goes on."""
        return self._body_left is None and not self._is_whole

    def _hold(self, data: bytes) -> None:
        self._held += data
        self.flow.pause_reading()

    def _feed(self, data: bytes) -> None:
        """Parses what came; where more than one request may be in it, step by step up to the end of the first.

        Empty lines before a request are none of it (RFC 9112, section 2.2), and no sign that one comes.
        """
        if data[0] in EMPTY_LINE and self._is_between():
            data = data.lstrip(EMPTY_LINE)
            if not data:
                return
        self._moved = self.loop.time()
        if not self._may_hold_two(data):
            self._parse(data)
            return
        view, at = memoryview(data), 0
        while at < len(view) and not self._lingers:
            if self._is_busy():
                self._hold(bytes(view[at:]))
                return
            if self._is_whole or self._is_in_head or self.cycle is None:
                step = STEP_BYTES
            else:
                step = _step_in_chunks(data, at) if self._body_left is None else self._body_left or STEP_BYTES
            self._parse(view[at : at + step])
            at += step

    def _may_hold_two(self, data: bytes) -> bool:
        if self._is_in_head:  # it may end in the middle of an empty line
            return True
        if not (self._is_whole or self.cycle is None):
            return self._body_left is None or len(data) > self._body_left
        end = data.find(END_OF_HEAD)
        # A body of JSON has no such character, and looking for one is faster than for four.
        return end >= 0 and data.find(b"\r", end + len(END_OF_HEAD)) >= 0

    def _parse(self, data: bytes | memoryview) -> None:
        if self._is_by_hand:
            self._take_by_hand(data)
            return
        self._has_body_come = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # No other protocol is spoken here; whoever offers one goes on in this (RFC 9110, section 7.8).
            self._take_rest(bytes(data[upgrade.args[0] :]))
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("")
        if (self._is_in_head or self._is_in_chunks()) and not self._lingers:
            self._framing = 0 if self._has_body_come else self._framing + len(data)
            if self._framing > self._settings.max_head_bytes:
                self._fault = self._too_large()
                self.send_400_response("")

    def _take_by_hand(self, data: bytes | memoryview) -> None:
        assert self._body_left is not None  # noqa: S101  it would not be by hand
        body, rest = bytes(data[: self._body_left]), bytes(data[self._body_left :])
        self.on_body(body)
        if not self._body_left:
            self.on_message_complete()
        self._take_rest(rest)

    def _take_rest(self, rest: bytes) -> None:
        if rest and self._is_busy():
            self._hold(rest)
        elif rest:
            self._feed(rest)

    def _should_upgrade(self) -> bool:
        return False

    def _go_on(self) -> None:
        """Parses what was held back, or reads on."""
        if self._held:
            data, self._held = self._held, b""
            self._feed(data)
        if not self._held:
            self.flow.resume_reading()
            if self._is_half_closed and self.cycle.response_complete:
                self.transport.close()

    def _time_out(self, detail: str) -> None:
        """Refuses a request of which something is missing; a connection on which nothing came is closed."""
        if self._is_in_head or not (self.cycle is None or self.cycle.response_complete):
            self._break_off(RequestTimeoutError(f"{detail}: send the request again"))
        else:
            self.transport.close()

    def _break_off(self, fault: RolloutError) -> None:
        """Refuses a request that will never be whole; what waits for its body learns that nothing more comes."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # nobody is told but by us
            self.cycle.message_event.set()
            if self._quick is None and self.cycle.response_started:
                self.transport.abort()
                return
        self._refuse(fault)

    def _refuse(self, fault: RolloutError) -> None:
        """Answers with a problem document and closes, a moment later: the client may still be sending."""
        body = msgspec.json.encode(problem_document(fault))
        headers = [NO_SNIFFING, *((name.encode(), value.encode()) for name, value in fault.headers.items())]
        more = b"".join(b"%b: %b\r\n" % header for header in headers)
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n"
        head %= (STATUS_LINE[fault.status], MEDIA_TYPE.encode(), len(body), more)
        self.transport.write(head + body)
        self._lingers = True
        self.loop.call_later(LINGER_S, self.transport.close)

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
        if self._head_size > self._settings.max_head_bytes:
            self._reject(self._too_large())

    def _reject(self, fault: RolloutError) -> NoReturn:
        """Ends the parsing of a request; the parser passes on that there is a fault, but not which."""
        self._fault = fault
        raise fault

    def _require_framing(self, headers: dict[bytes, bytes]) -> None:
        """Refuses what leaves open where the request ends (RFC 9112, section 6.3)."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._reject(MalformedRequestError(f"this service speaks HTTP/1.1, not HTTP/{version}"))
        coding = headers.get(b"transfer-encoding")
        if coding is not None and self.parser.should_upgrade():
            self._reject(MalformedRequestError("only HTTP/1.1 is spoken here: send chunks without Upgrade"))
        if coding is not None and (coding.strip().lower() != b"chunked" or version != "1.1"):
            self._reject(
                MalformedRequestError(
                    "the only Transfer-Encoding is chunked, in HTTP/1.1: leave the header out, or send chunks"
                )
            )

    def _too_large(self) -> HeadersTooLargeError:
        return HeadersTooLargeError(
            f"at most {MOST_HEADERS} headers of {self._settings.max_head_bytes:,} bytes together with the target "
            "are taken: send fewer"
        )

    def _to_origin_form(self) -> None:
        """Makes ``POST http://host/path`` what ``POST /path`` to that host is (RFC 9112, section 3.2.2)."""
        target = httptools.parse_url(self.url)
        if target.schema not in (b"http", b"https") or not target.host:
            self._reject(MalformedRequestError("the target is neither a path nor a URL of HTTP"))
        port = b"" if target.port is None else b":%d" % target.port
        host = b"[%b]" % target.host if b":" in target.host else target.host
        self.headers[:] = [header for header in self.headers if header[0] != b"host"]
        self.headers.append((b"host", host + port))
        self.url = (target.path or b"/") + (b"" if target.query is None else b"?" + target.query)

    def _quick_handler(self, headers: dict[bytes, bytes]) -> ASGIApp | None:
        """Returns what answers the request if it goes the short way, and may."""
        path, _, query = self.url.partition(b"?")
        if b"%" in path:
            return None
        if self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return None
        if self.expect_100_continue or not (self.cycle is None or self.cycle.response_complete):
            return None
        if (
            int(headers.get(b"content-length", QUICK_BYTES + 1)) > QUICK_BYTES
            or b"transfer-encoding" in headers
            or b"upgrade" in headers
        ):
            return None
        scope: Scope = self.scope  # type: ignore[assignment]  # it is filled in here
        scope.update(method="POST", path=path.decode("ascii"), raw_path=path, query_string=query)
        gateway = self.app_state.get("gateway")
        handler: ASGIApp | None = None if gateway is None else gateway.quick(scope, headers)
        if handler is not None:
            begin(scope, headers)
        return handler


def _step_in_chunks(data: bytes, at: int) -> int:
    """Returns how much of a body in chunks is parsed at once: after an empty line may come the next request."""
    if not at:  # what came before may have ended within that line
        return len(END_OF_HEAD) - 1
    end = data.find(END_OF_HEAD, at - len(END_OF_HEAD) + 1)
    return len(data) - at if end < 0 else end + len(END_OF_HEAD) - at + STEP_BYTES - 1
