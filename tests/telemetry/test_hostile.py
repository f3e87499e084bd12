"""A collector that answers what it likes: its answer is not read, and nothing of it is kept."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import psutil
import pytest

from rollout.telemetry.collector import Session

HEADS = {
    "an answer": b"HTTP/1.1 200 OK\r\n\r\n",
    "a refusal": b"HTTP/1.1 400 No\r\n\r\n",
    "a redirect": b"HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:1/elsewhere\r\n\r\n",
    "cookies": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADS)
def test_a_body_without_end_fills_no_memory(head: str) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(HEADS[head])
            for _ in range(200):
                connection.sendall(bytes(2**20))

    thread = threading.Thread(target=answer)
    thread.start()
    before = psutil.Process().memory_info().rss
    with Session() as session:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces"
        answered = session.request("POST", url, data=b"spans", timeout=5, allow_redirects=False)
        assert answered.status_code == int(HEADS[head].split()[1])
        assert not session.cookies
    thread.join()
    server.close()
    assert psutil.Process().memory_info().rss - before < 32 * 2**20
