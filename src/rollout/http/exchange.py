"""One request and its answer: a body is inflated as it is read, and one that is not read is discarded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

from starlette.types import Message, Receive, Send

from rollout.http.encodings import Inflater

# A client reads the answer only after it has sent its last byte, and never if the connection is closed before: so
# what still comes is read and discarded, up to so many bytes and seconds.
DRAIN_BYTES = 32 * 1024 * 1024
DRAIN_S = 5.0
# A browser takes an answer for what it says that it is.
NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class Exchange:
    """Stands between the server and a handler.

    Args:
        receive: Of the server.
        send: Of the server.
        traceparent: Goes back in the answer.
        has_body: Whether the request announces a body.
        waits_to_send: Whether the client waits for ``100 Continue``, and will not send a body that is refused.
        is_stream: Whether the answer begins before the body has been read.
        encoding: The value of ``Content-Encoding``; empty for a body as it is.

    Attributes:
        has_begun: Whether the answer has begun.
        status: Its status, once it has.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        traceparent: bytes,
        has_body: bool,
        waits_to_send: bool = False,
        is_stream: bool = False,
        encoding: str = "",
    ) -> None:
        self._receive, self._send = receive, send
        self._traceparent = traceparent
        self._is_unread = has_body
        self._waits_to_send = waits_to_send
        self._is_stream = is_stream
        self._inflater = Inflater(encoding) if encoding else None
        self._pieces: Iterator[bytes] = iter(())
        self.has_begun = False
        self.status = 500

    async def receive(self) -> Message:
        """Receives the next part of the body.

        Raises:
            MalformedBodyError: If it is not of the encoding that its header says.
        """
        self._waits_to_send = False
        if self._inflater is None:
            return await self._receive_raw()
        while True:
            piece = next(self._pieces, None)
            if piece is not None:
                await asyncio.sleep(0)  # a body of many pieces leaves others the event loop in between
                return {"type": "http.request", "body": piece, "more_body": True}
            if not self._is_unread:
                self._inflater.end()
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._receive_raw()
            if message["type"] != "http.request":
                return message
            self._pieces = self._inflater.feed(message.get("body", b""))

    async def send(self, message: Message) -> None:
        """Sends a part of the answer; before the last one, what is left of the body is read."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            self.status = message["status"]
            headers = [*message.get("headers", []), NO_SNIFFING, (b"traceparent", self._traceparent)]
            if self._is_unread and not self._is_stream:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif self._is_unread and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _receive_raw(self) -> Message:
        message = await self._receive()
        self._is_unread = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def _drain(self) -> None:
        left = 0 if self._waits_to_send else DRAIN_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._is_unread and left > 0:
                    left -= len((await self._receive_raw()).get("body", b""))
