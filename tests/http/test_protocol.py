"""The short way of a prediction through the server answers as the long one does, whatever a client sends."""

from __future__ import annotations

import json
import re
import socket
import time

import pytest

from tests.conftest import Service
from tests.images import row

BODY = json.dumps(row(client_id="c-1", key="k-1")).encode()
PATH = "/v1/models/digits/predict"


def head(*lines: str, path: str = PATH, version: str = "1.1") -> bytes:
    start = (f"POST {path} HTTP/{version}", "Host: localhost", "Content-Type: application/json", *lines)
    return "\r\n".join((*start, "", "")).encode()


LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (100, BODY[:100], len(BODY) - 100, BODY[100:])


def exchange(service: Service, *parts: bytes, answers: int = 1) -> list[tuple[int, str, bytes]]:
    """Sends the parts one by one; returns status, head and body of each answer."""
    host, port = service.base.removeprefix("http://").split(":")
    received = b""
    found: list[tuple[int, str, bytes]] = []
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
            time.sleep(0.005)  # so that the service gets it as a part
        while len(found) < answers:
            before, gap, rest = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", before.lower())
            if gap and before.startswith(b"HTTP/1.1 100"):
                received = rest
            elif gap and length and len(rest) >= int(length[1]):
                text = before.decode()
                found.append((int(text.split()[1]), text.lower(), rest[: int(length[1])]))
                received = rest[int(length[1]) :]
            else:
                more = connection.recv(65536)
                assert more, f"closed after {received!r}"
                received += more
    return found


@pytest.mark.parametrize(
    "parts",
    [
        [head(LENGTH) + BODY],
        [head(LENGTH), BODY],
        [head(LENGTH), BODY[:50], BODY[50:2000], BODY[2000:]],
        [head("Transfer-Encoding: chunked") + CHUNKED],
        [head(LENGTH, "Expect: 100-continue"), BODY],
        [head(LENGTH, path=f"{PATH}?a=b") + BODY],
        [head(LENGTH, path=PATH.replace("predict", "%70redict")) + BODY],
        [head(LENGTH, version="1.0") + BODY],
        [head(LENGTH, "Connection: close") + BODY],
        [bytes([byte]) for byte in head(LENGTH) + BODY[:20]] + [BODY[20:]],
    ],
)
def test_one_answer_whatever_the_way(service: Service, parts: list[bytes]) -> None:
    ((status, _, body),) = exchange(service, *parts)
    assert status == 200
    answer = json.loads(body)
    assert (answer["client_id"], answer["key"]) == ("c-1", "k-1")


def test_requests_that_do_not_wait_for_answers_are_answered_in_order(service: Service) -> None:
    bodies = [json.dumps(row(client_id="c-1", key=f"k-{number}")).encode() for number in range(5)]
    sent = b"".join(head(f"Content-Length: {len(body)}") + body for body in bodies)
    answers = exchange(service, sent, answers=5)
    assert [json.loads(body)["key"] for _, _, body in answers] == [f"k-{number}" for number in range(5)]


LIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_what_comes_behind_a_request_is_answered_wherever_it_is_cut(service: Service) -> None:
    """What was forgotten kept its connection for ever."""
    for request in (head("Transfer-Encoding: chunked") + CHUNKED, head(LENGTH) + BODY, LIVE):
        end = request.index(b"\r\n\r\n")
        for cut in (*range(end, end + 5), *range(len(request) - 5, len(request) + 1)):
            answers = exchange(service, request[:cut], request[cut:] + LIVE, answers=2)
            assert [status for status, _, _ in answers] == [200, 200]
    sizes = (f"{size:x}\r\n{'[' * size}\r\n0\r\n\r\n".encode() for size in range(1, 80))
    for chunks in sizes:
        sent = head("Transfer-Encoding: chunked") + chunks + LIVE
        assert exchange(service, sent, answers=2)[1][0] == 200


def test_the_connection_is_kept_or_closed_as_the_client_wishes(service: Service) -> None:
    ((_, kept, _),) = exchange(service, head(LENGTH) + BODY)
    assert "connection:" not in kept
    ((_, closed, _),) = exchange(service, head(LENGTH, "Connection: close") + BODY)
    assert "connection: close" in closed


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head("Content-Length: 0"), 400),
        (head("Content-Length: 3") + b"{}}", 400),
        (head("Content-Length: 99999999999"), 413),
        (head("Content-Length: x"), 400),
        (head("Content-Length: 2", "Content-Length: 3") + b"{}", 400),
        (head(LENGTH, path="/v1/models/cats/predict") + BODY, 404),
        (head(LENGTH, path="//predict") + BODY, 404),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_bad_requests_are_refused(service: Service, sent: bytes, status: int) -> None:
    ((found, _, _),) = exchange(service, sent)
    assert found == status


def test_who_offers_another_protocol_is_answered_in_this_one(service: Service) -> None:
    """As clients do that would rather speak HTTP/2, among them Java's and curl's."""
    for offer in (
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    ):
        request = head(LENGTH, *offer) + BODY
        for parts in (
            [request],
            [head(LENGTH, *offer), BODY],
            [head(LENGTH, *offer) + BODY[:7], BODY[7:900], BODY[900:]],
            [request[at : at + 97] for at in range(0, len(request), 97)],
        ):
            (answer,) = exchange(service, *parts)
            assert answer[0] == 200
        answers = exchange(service, request + request + head(LENGTH) + BODY, answers=3)
        assert [answer[0] for answer in answers] == [200] * 3
    chunked = head("Connection: Upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked") + b"0\r\n\r\n"
    assert exchange(service, chunked)[0][0] == 400


def test_clients_that_leave_in_the_middle_harm_nobody(service: Service) -> None:
    host, port = service.base.removeprefix("http://").split(":")
    for part in (head(LENGTH), head(LENGTH) + BODY[:100], head(LENGTH) + BODY):
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(part)
    assert exchange(service, head(LENGTH) + BODY)[0][0] == 200
    assert "Traceback" not in service.log.read_text()
