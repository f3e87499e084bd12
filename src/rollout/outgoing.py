"""Requests to services of others from the process that serves: whatever they answer holds up nothing else."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.client_proto import ResponseHandler

# All of an answer up to the end of its headers, with what is said before it by 1xx.
LARGEST_HEAD = 16 * 1024
# So much is parsed before it is looked what became of it: of tiny messages, that takes a few milliseconds.
PIECE = 8 * 1024


def session(timeout_s: float, most_bytes: int = 0, **options: Any) -> aiohttp.ClientSession:
    """Returns a session that keeps no cookies and unpacks nothing, and leaves a server that answers too much.

    aiohttp parses all that has come at once, in the event loop, and goes on for as long as more comes: a server
    that never stops saying ``100 Continue`` would keep the loop, and all that it serves, to itself.

    Args:
        timeout_s: Seconds for all of a request.
        most_bytes: Of the body with its framing; who reads no body needs none.
        **options: Of ``aiohttp.ClientSession``.
    """
    return aiohttp.ClientSession(
        connector=_Connector(most_bytes),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        **options,
    )


class _Resolver(aiohttp.ThreadedResolver):
    """Looks each name up once at a time: who does not answer keeps one of uvloop's four threads, and not all."""

    async def resolve(self, host: str, *arguments: Any, **options: Any) -> list[ResolveResult]:
        """Returns the addresses of a host."""
        async with _lookup(asyncio.get_running_loop(), host):
            return await super().resolve(host, *arguments, **options)


@functools.lru_cache(maxsize=8)
def _lookup(_loop: asyncio.AbstractEventLoop, _host: str) -> asyncio.Lock:
    return asyncio.Lock()


class _Connector(aiohttp.TCPConnector):
    def __init__(self, most_bytes: int) -> None:
        super().__init__(resolver=_Resolver())
        bounded: Callable[..., ResponseHandler] = _Bounded
        self._factory = functools.partial(bounded, asyncio.get_running_loop(), most_bytes=most_bytes)


class _Bounded(ResponseHandler):
    """One connection, which is closed where an answer is larger than it may be, or is several.

    Args:
        loop: Where it is read.
        most_bytes: Of a body with its framing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, most_bytes: int) -> None:
        super().__init__(loop)
        self._most = most_bytes
        self._left = 0  # bytes that may come
        self._is_answered = False

    def set_response_params(self, **params: Any) -> None:
        """Begins an answer."""
        self._left, self._is_answered = LARGEST_HEAD, False
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Takes what was parsed: a message that goes before the answer, or its headers."""
        if self._is_answered:
            self._leave()
            return
        if data[0].code >= 200:
            self._left, self._is_answered = self._most, True
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Takes what came, piece by piece."""
        while True:
            piece, data = data[:PIECE], data[PIECE:]
            if len(piece) > self._left:
                self._leave()
                return
            self._left -= len(piece)
            super().data_received(piece)
            if not data or not self.is_connected():
                return

    def _leave(self) -> None:
        self.set_exception(aiohttp.ClientPayloadError("the answer is larger than it may be"))
        if self.transport is not None:
            self.transport.abort()
