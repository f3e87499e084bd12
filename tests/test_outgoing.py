"""Services of others that answer what they like: it holds up nothing else, and fills no memory."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any

import aiohttp
import psutil
import pytest

from rollout import outgoing

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\nok"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ENDLESS = {
    "nothing but 1xx": (b"", CONTINUE * 20_000),
    "1xx with headers": (b"", (b"HTTP/1.1 103 Early Hints\r\n" + b"Link: x\r\n" * 100 + b"\r\n") * 500),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 20_000),
    "one header": (b"HTTP/1.1 200 OK\r\nA: ", b"b" * 2**20),
    "a reason": (b"HTTP/1.1 200 ", b"b" * 2**20),
    "a body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 2**20),
    "small chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 50_000),
    "answers": (b"", GOOD * 10_000),
}


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Listens until the block ends; yields where."""
    server = socket.create_server(("127.0.0.1", 0))

    def take(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            answer(connection)

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=take, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/"
    server.shutdown(socket.SHUT_RDWR)
    server.close()


async def ask(session: aiohttp.ClientSession, url: str, *, is_read: bool) -> int | None:
    try:
        async with session.post(url, allow_redirects=False) as response:
            if is_read:
                await response.read()
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return None


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("kind", ENDLESS)
async def test_an_answer_without_end_costs_next_to_nothing(kind: str, *, is_read: bool) -> None:
    begin, more = ENDLESS[kind]

    def answer(connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(more)

    with answering(answer) as url:
        async with outgoing.session(5.0, 16 * 1024) as session:
            process, began = psutil.Process(), time.perf_counter()
            before, busy = process.memory_info().rss, time.thread_time()
            await ask(session, url, is_read=is_read)
            assert time.perf_counter() - began < 4, "it was left before its time was over"
            assert time.thread_time() - busy < 0.5
            assert process.memory_info().rss - before < 16 * 2**20


async def test_a_usual_answer_is_read_its_connection_used_again_and_no_cookie_kept() -> None:
    came: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        for _ in itertools.count():
            connection.sendall(CONTINUE)
            for place in range(len(GOOD)):
                connection.sendall(GOOD[place : place + 1])
            if not (sent := connection.recv(65536)):
                return
            came.append(sent)

    with answering(answer) as url:
        async with outgoing.session(5.0, 16 * 1024) as session:
            for _ in range(3):
                async with session.post(url) as response:
                    assert (response.status, await response.read()) == (200, b"ok")
                assert not len(session.cookie_jar)
            await asyncio.sleep(0.05)
    assert len([one for one in came if b"POST" in one]) == 2, "of three, the second and third"
    assert not any(b"Cookie" in one for one in came)


async def test_a_name_that_is_not_found_takes_no_more_than_one_of_the_threads_that_look_names_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of uvloop's, which has four for all: a new connection to Redis would wait for minutes."""
    asked: list[str] = []

    async def hang(*arguments: Any, **_: Any) -> None:
        asked.append(arguments[1])
        await asyncio.sleep(60)

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", hang)
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(outgoing.session(0.1)) for _ in range(8)]
        hosts = ["http://hooks.example/", "http://mlflow.example/"] * 4
        for _ in range(2):
            found = [ask(session, host, is_read=False) for session, host in zip(sessions, hosts, strict=True)]
            assert await asyncio.gather(*found) == [None] * 8
    assert sorted(asked) == ["hooks.example", "mlflow.example"]
