"""The floor: uvloop and httptools answer every request with the same bytes, and no model is asked."""

from __future__ import annotations

import argparse
import asyncio

import httptools
import uvloop

BODY = b"x" * 260
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Constant(asyncio.Protocol):
    """A connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to parse."""
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        """Parses what came."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header, as every server does."""
        self._headers[name] = value

    def on_body(self, body: bytes) -> None:
        """Takes a piece of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answers."""
        self._headers, self._body = {}, []
        self._transport.write(ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    uvloop.run(_serve(parser.parse_args().port))
