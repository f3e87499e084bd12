"""A caller of the streaming route who sends and reads when they want to."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

HEADERS = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}


class Caller:
    """A stream of lines in chunks, over a connection of its own.

    Args:
        base: Address of the service.
        **headers: Further headers.
    """

    def __init__(self, base: str, model: str = "digits", **headers: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=30)
        self._connection.putrequest("POST", f"/v1/models/{model}/predict")
        for name, value in (HEADERS | headers).items():
            self._connection.putheader(name.replace("_", "-"), value)
        self._connection.endheaders()
        self._response: http.client.HTTPResponse | None = None

    def send(self, *parts: dict[str, Any] | bytes) -> None:
        """Sends instances, or bytes as they are, in one chunk."""
        data = b"".join(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n" for part in parts)
        self._connection.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """Ends the body."""
        self._connection.send(b"0\r\n\r\n")

    def read(self) -> dict[str, Any] | None:
        """Reads the next answer; ``None`` at the end."""
        if self._response is None:
            self._response = self._connection.getresponse()
            assert self._response.status == 200
            assert self._response.headers["Content-Type"] == "application/x-ndjson"
        line = self._response.readline()
        return json.loads(line) if line else None

    def read_all(self) -> Iterator[dict[str, Any]]:
        """Reads all that is left."""
        while (answer := self.read()) is not None:
            yield answer

    def do_not_read(self, seconds: float) -> None:
        """Makes the buffer for answers small and stay so, and blocks for ``seconds`` at most while sending."""
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self._connection.sock.settimeout(seconds)

    def close(self) -> None:
        """Hangs up."""
        self._connection.close()
        if self._response is not None:
            self._response.close()


def exchange(base: str, parts: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Sends parts of a body in a thread, as one must who has more to send than buffers hold; yields the answers."""

    def send() -> None:
        for part in parts:
            caller.send(part)
        caller.end()

    caller = Caller(base)
    sender = threading.Thread(target=send)
    sender.start()
    yield from caller.read_all()
    sender.join()
    caller.close()
