"""What the client does where somebody else answers in the place of the service: it ends, and takes little memory."""

from __future__ import annotations

import asyncio
import inspect
import socketserver
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import pytest

from rollout.client import AsyncClient, Client, NoAnswerError, UnexpectedAnswerError, async_client, client

MOST = 4 * 1024 * 1024


@contextmanager
def answering(answer: Callable[[Any], None]) -> Iterator[str]:
    """Answers whatever is asked."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += self.request.recv(65536)
            with suppress(OSError):
                answer(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def endless(connection: Any) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    while True:
        connection.sendall(bytes(1024 * 1024))


def packed() -> bytes:
    """Returns 64 MiB that are packed twice, into some hundred bytes."""
    found = bytes(64 * 1024 * 1024)
    for _ in range(2):
        found = zlib.compress(found, 9, 31)
    return found


BOMB = packed()


def bomb(connection: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % len(BOMB) + BOMB)


def ask(url: str) -> None:
    with Client(url, timeout=30) as asked:
        asked.models()


def ask_async(url: str) -> None:
    async def run() -> None:
        async with AsyncClient(url, timeout=30) as asked:
            await asked.models()

    asyncio.run(run())


@pytest.mark.parametrize("asking", [ask, ask_async])
@pytest.mark.parametrize("answer", [endless, bomb])
def test_no_answer_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[Any], None], asking: Callable[[str], None]
) -> None:
    for module in (client, async_client):
        monkeypatch.setattr(module, "MOST_BYTES", MOST)
    with answering(answer) as url:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(UnexpectedAnswerError):
                asking(url)
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    assert peak < 4 * MOST


def hints(connection: Any) -> None:
    for _ in range(400):
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.05)


def headers(connection: Any) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(400):
        connection.sendall(b"x")
        time.sleep(0.05)


def body(connection: Any) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    for _ in range(400):
        connection.sendall(b" ")
        time.sleep(0.05)


def nothing_but_reading(connection: Any) -> None:
    while connection.recv(65536):
        time.sleep(0.01)


@pytest.mark.parametrize("client_type", [Client, AsyncClient])
@pytest.mark.parametrize("answer", [hints, headers, body, nothing_but_reading])
def test_no_server_keeps_a_caller_longer_than_it_waits(
    answer: Callable[[Any], None], client_type: type[Client | AsyncClient]
) -> None:
    async def run(url: str) -> Any:
        asked = client_type(url, timeout=0.5)
        sent = asked.predict(
            "c", {"text": "x" * 128 * 1024 * 1024} if answer is nothing_but_reading else {}, model="m"
        )
        return await sent if inspect.isawaitable(sent) else sent

    with answering(answer) as url:
        begun = time.monotonic()
        with pytest.raises(NoAnswerError):
            asyncio.run(run(url))
        assert time.monotonic() < begun + 10


@pytest.mark.parametrize("asking", [ask, ask_async])
def test_it_goes_nowhere_else(asking: Callable[[str], None]) -> None:
    came: list[Any] = []
    with answering(came.append) as elsewhere:

        def redirect(connection: Any) -> None:
            connection.sendall(f"HTTP/1.1 307 X\r\nLocation: {elsewhere}/\r\nContent-Length: 0\r\n\r\n".encode())

        with answering(redirect) as url, pytest.raises(UnexpectedAnswerError, match="307"):
            asking(url)
    assert came == []
