"""A connection has bounds: in time, in memory, and in number; under both servers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import psutil
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from rollout.config import Settings
from rollout.http.protocol import PredictProtocol
from tests.conftest import TRIAL, Service, run_service, set_split
from tests.service.test_bentoml import SERVE

PREDICT = "/v1/models/digits/predict"
MOST = 20
MIB = 1024 * 1024
BOUNDS = {
    "ROLLOUT_WORKERS": "1",
    "ROLLOUT_MAX_CONNECTIONS": str(MOST),
    "ROLLOUT_HEAD_TIMEOUT_S": "1",
    "ROLLOUT_BODY_TIMEOUT_S": "1",
    "ROLLOUT_IDLE_TIMEOUT_S": "3",
}
# A look is taken each second, by a worker that may be held up by what else runs here.
SOON_S = 12.0
LENGTH = b"POST /v1/models/digits/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module", params=["rollout serve", "bentoml serve"])
def bounded(
    bundles: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Service]:
    """A service of one worker that is short of patience and of connections."""
    home = tmp_path_factory.mktemp("bounded")
    set_split(home, *TRIAL)
    with run_service(home, SERVE if request.param == "bentoml serve" else None, **BOUNDS) as running:
        yield running


def connect(service: Service) -> socket.socket:
    host, port = service.base.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=15)


def read_all(connection: socket.socket) -> bytes:
    """Reads up to the end of the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(65536):
            received += more
    return received


def is_alive(connection: socket.socket) -> bool:
    """Asks ``/livez``; its answer may come in two pieces."""
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while not received.endswith(b"\r\n\r\n\n"):
        more = connection.recv(65536)
        if not more:
            break
        received += more
    return received.startswith(b"HTTP/1.1 200 ")


def worker_memory(service: Service) -> int:
    """Returns the resident bytes of everything that the service runs."""
    process = psutil.Process(service.process.pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)) if one.is_running())


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"POST /v1/mod", 408),
        (LENGTH + b"Content-Length: 100\r\n\r\n{", 408),
        (LENGTH + b"Content-Length: 2000000\r\n\r\n{", 408),
        (LENGTH + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", 408),
    ],
)
def test_what_does_not_come_is_not_waited_for(bounded: Service, sent: bytes, status: int | None) -> None:
    started = time.monotonic()
    with connect(bounded) as connection:
        connection.sendall(sent)
        answer = read_all(connection)
    assert 1 <= time.monotonic() - started < SOON_S
    if status is None:
        assert answer == b""
    else:
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"urn:rollout:problem:request-timeout" in answer
        assert answer.count(b"HTTP/1.1") == 1


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
LOGIN = (
    b"POST /console/login HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n" + CHUNKED
)
NO_CHUNKS = [b"5\r\ntoken\r\nzz\r\n", b"5\r\ntoken\r\n-1\r\n", b"5\r\ntokenxx", b"\r\n", b"5;" + b"x" * 100_000]


@pytest.mark.parametrize("chunks", NO_CHUNKS)
def test_a_body_that_breaks_is_refused_at_once(bounded: Service, chunks: bytes) -> None:
    lines = LENGTH.replace(b"application/json", b"application/x-ndjson")
    held = []
    for head in (LOGIN, LENGTH + CHUNKED, lines + CHUNKED):
        took = []
        for _ in range(3):  # one may be held up by what else runs here
            connection = connect(bounded)
            started = time.monotonic()
            connection.sendall(head + chunks)
            held.append((head, connection, connection.recv(65536)))
            took.append(time.monotonic() - started)
        assert min(took) < 0.9, "at once, not after a time limit"
    for head, connection, begun in held:  # each is closed after a while
        with connection:
            answer = begun + read_all(connection)
        assert re.match(rb"HTTP/1.1 (400|431) ", answer) or (head == lines + CHUNKED and not answer)
        assert answer.count(b"HTTP/1.1 4") <= 1


def test_bodies_that_break_are_never_taken_for_whole(bounded: Service) -> None:
    """Neither by a handler that has read a part of one, which could act on it."""
    with contextlib.ExitStack() as held:
        for _ in range(5):
            connection = held.enter_context(connect(bounded))
            for part in (LOGIN, b"c\r\ntoken=nobody\r\n", b"zz\r\n"):
                connection.sendall(part)
                time.sleep(0.1)
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    time.sleep(0.5)
    assert "a login from" not in bounded.log.read_text()


@pytest.mark.parametrize("sent", [b"x-a: " + b"b" * 3 * MIB, b"x-a: b\r\n" * 100_000], ids=["large", "many"])
def test_trailers_have_bounds(bounded: Service, sent: bytes) -> None:
    with connect(bounded) as connection:
        started = time.monotonic()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(LENGTH + CHUNKED + b"0\r\n" + sent)
        answer = read_all(connection)
    assert time.monotonic() - started < SOON_S
    assert answer.startswith(b"HTTP/1.1 431 ") or not answer


def test_a_stop_does_not_wait_for_a_body_that_broke(
    bundles: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("stopping")
    set_split(home, *TRIAL)
    with run_service(home, None, **BOUNDS) as running, contextlib.ExitStack() as held:
        for chunks in NO_CHUNKS:
            held.enter_context(connect(running)).sendall(LOGIN + chunks)
        time.sleep(0.2)
        started = time.monotonic()
        running.process.terminate()
        running.process.wait(30)
        assert time.monotonic() - started < 15
        assert "Traceback" not in running.log.read_text()


def test_headers_that_come_byte_by_byte_have_no_more_time(bounded: Service) -> None:
    started = time.monotonic()
    with connect(bounded) as connection:
        connection.settimeout(0.2)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ")
        while time.monotonic() - started < SOON_S:
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(1000)
                break
            connection.sendall(b"x")
    assert time.monotonic() - started < SOON_S
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_kept_for_a_while_and_then_closed(bounded: Service) -> None:
    with connect(bounded) as connection:
        for _ in range(2):
            assert is_alive(connection)
            answered = time.monotonic()
            time.sleep(1.5)
        assert read_all(connection) == b""
        assert 2.5 < time.monotonic() - answered < SOON_S


def test_more_connections_than_are_allowed_are_told_to_come_back(bounded: Service) -> None:
    with contextlib.ExitStack() as held:
        first = [held.enter_context(connect(bounded)) for _ in range(MOST)]
        for connection in first:
            assert is_alive(connection)
        with connect(bounded) as further:
            answer = further.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer.lower()
        assert b"urn:rollout:problem:overloaded" in answer
        assert is_alive(first[0]), "those that are there go on"
    give_up = time.monotonic() + 60
    while True:
        with connect(bounded) as again:
            if is_alive(again):
                break
        assert time.monotonic() < give_up
        time.sleep(0.1)


def test_who_sends_and_does_not_read_fills_no_memory(bounded: Service) -> None:
    requests = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
    before = worker_memory(bounded)
    peak = before
    sent = 0
    with connect(bounded) as connection:
        connection.settimeout(0.05)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                try:
                    sent += connection.send(requests)
                except (ConnectionResetError, BrokenPipeError):
                    break
            peak = max(peak, worker_memory(bounded))
            with bounded.client() as other:
                assert other.get("/livez").status_code == 200, "others are answered"
        else:
            pytest.fail("the connection is kept although nothing is taken of it")
    assert sent < 8 * MIB, "the rest was not read"
    assert peak - before < 24 * MIB


def test_ten_thousand_requests_at_once_are_answered_one_after_the_other(bounded: Service) -> None:
    count = 10_000
    answered = 0
    peak = before = worker_memory(bounded)
    with connect(bounded) as connection:
        requests = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" * count
        sending = threading.Thread(target=connection.sendall, args=(requests,), daemon=True)
        sending.start()
        while answered < count:
            more = connection.recv(1 << 20)
            assert more, f"closed after {answered}"
            answered += more.count(b"urn:rollout:problem:not-found")
            peak = max(peak, worker_memory(bounded))
        sending.join()
    # BentoML's TimeoutMiddleware keeps a timer, and all that hangs on it, for a minute after each request.
    kept = 6 * 1024 * count if "bentoml" in str(bounded.process.args) else 0
    assert peak - before < 24 * MIB + kept


@asynccontextmanager
async def serving(
    answer: ASGIApp, settings: Settings
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, PredictProtocol]]:
    """Answers the predictions of one connection in this process; yields both ends of it."""
    gateway = SimpleNamespace(settings=settings, is_draining=False, quick=lambda *_: answer)
    config = uvicorn.Config(answer, http=PredictProtocol, lifespan="off", log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    made: asyncio.Future[PredictProtocol] = loop.create_future()

    def make() -> PredictProtocol:
        made.set_result(PredictProtocol(config, ServerState(), {"gateway": gateway}))
        return made.result()

    async with await loop.create_server(make, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        connection = await made
        yield reader, writer, connection
        writer.close()
        await writer.wait_closed()


async def test_only_the_client_s_part_is_timed() -> None:
    """What takes the service long is its own affair: the answer comes after each of the limits."""

    async def answer(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(3.2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    hasty = Settings(head_timeout_s=1, body_timeout_s=1, idle_timeout_s=1)
    async with serving(answer, hasty) as (reader, writer, _):
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        assert (await reader.readuntil(b"late")).startswith(b"HTTP/1.1 200 ")
        assert await reader.read() == b"", "and then it is idle"


async def _answer_at_once(_: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def _count_body(_: Scope, receive: Receive, send: Send) -> None:
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d bytes" % size})


REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("first", [b"", REQUEST])
async def test_empty_lines_keep_no_connection_open(first: bytes) -> None:
    """They are no sign that a request comes: whoever sends no token kept a connection for ever with them."""
    hasty = Settings(head_timeout_s=1, idle_timeout_s=1)
    async with serving(_answer_at_once, hasty) as (_, writer, connection):
        writer.write(first)
        give_up = time.monotonic() + SOON_S
        while not connection.transport.is_closing() and not writer.is_closing():
            assert time.monotonic() < give_up
            writer.write(b"\r\n")
            await asyncio.sleep(0.1)


async def test_empty_lines_before_a_request_cost_next_to_nothing() -> None:
    """Parsed one by one, those of one turn of the event loop held up all others for a second."""
    async with serving(_answer_at_once, Settings()) as (reader, writer, connection):
        for _ in range(2):  # before the first request, and before the next
            started = time.thread_time()
            for lines in (b"\r\n" * 2_000_000, b"\n" * 4_000_000):
                connection.data_received(lines)
            assert time.thread_time() - started < 0.2
            for part in (b"\r", b"\n\r\n" + REQUEST):
                writer.write(part)
                await asyncio.sleep(0.01)
            assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200 ")


async def test_what_stands_around_a_body_in_chunks_costs_next_to_nothing() -> None:
    async with serving(_count_body, Settings()) as (reader, writer, connection):
        writer.write(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(0.01)
        started = time.thread_time()
        for _ in range(512):
            connection.data_received(b"1;%b\r\na\r\n" % (b"x" * 60_000))
        assert time.thread_time() - started < 0.3
        writer.write(b"0\r\n\r\n")
        assert (await reader.readuntil(b"512 bytes")).startswith(b"HTTP/1.1 200 ")


async def test_no_further_request_is_begun_while_an_answer_is_not_taken() -> None:
    """Of the quick way, whose answers do not wait for each other: here each has 256 KiB."""
    begun = 0

    async def answer(_: Scope, receive: Receive, send: Send) -> None:
        nonlocal begun
        begun += 1
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 256 * 1024})

    async with serving(answer, Settings()) as (reader, writer, connection):
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n" * 400)
        await asyncio.sleep(1)
        assert begun < 100, "the kernel takes some"
        assert connection.transport.get_write_buffer_size() < MIB
        received = 0
        while received < 400 * 256 * 1024:
            received += len(await reader.read(1 << 20))
        assert begun == 400


async def test_what_comes_before_an_answer_is_there_is_left_to_the_kernel() -> None:
    held = 32 * MIB
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(_: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        is_asked.set()
        await may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async with serving(answer, Settings()) as (reader, writer, _):
        writer.write(REQUEST)
        await is_asked.wait()
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % held + bytes(held))
        await asyncio.sleep(0.5)
        assert writer.transport.get_write_buffer_size() > held // 2
        may_answer.set()
        for _ in range(2):
            assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200 ")
