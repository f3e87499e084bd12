"""Requests as attackers, proxies and unusual clients send them, over raw sockets, under both servers."""

from __future__ import annotations

import base64
import json
import socket
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import psutil
import pytest

from tests.conftest import TRIAL, Service, run_service, set_split
from tests.images import image, png, row

PREDICT = "/v1/models/digits/predict"
BODY = json.dumps(row(client_id="c-1", key="k-1")).encode()
JSON = "Content-Type: application/json"
MIB = 1024 * 1024
SCAN = base64.b64decode(png(np.array(image(), np.uint8)))
# A file as the body, and a form: browsers send the latter to other origins without asking these.
FILES = [
    (["Content-Type: image/png", "X-Client-Id: c-1", "X-Key: k-1"], SCAN),
    (
        ["Content-Type: multipart/form-data; boundary=b"],
        b'--b\r\nContent-Disposition: form-data; name="client_id"\r\n\r\nc-1\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="scan.png"\r\n\r\n'
        + SCAN
        + b"\r\n--b--\r\n",
    ),
]


class Answer(NamedTuple):
    """What came back on a connection that the service then closed, or kept."""

    status: int
    head: str
    body: bytes

    @property
    def kind(self) -> str:
        """The type of a problem document."""
        return str(json.loads(self.body)["type"]).removeprefix("urn:rollout:problem:")


def head(target: str = PREDICT, *lines: str, method: str = "POST", host: str = "Host: localhost") -> bytes:
    """Returns the head of a request."""
    return "\r\n".join((f"{method} {target} HTTP/1.1", *filter(None, (host, *lines)), "", "")).encode()


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


def send(service: Service, *parts: bytes, half_close: bool = False) -> Answer:
    """Sends the parts, whatever comes meanwhile, and reads the one answer."""
    host, port = service.base.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        while (
            half_close
            or b"\r\n\r\n" not in received
            or len(received.partition(b"\r\n\r\n")[2]) < _length(received)
        ):
            more = connection.recv(65536)
            if not more:
                break
            received += more
    start, _, body = received.partition(b"\r\n\r\n")
    assert start, "closed without an answer"
    return Answer(int(start.split()[1]), start.decode().lower(), body)


def _length(received: bytes) -> int:
    lines = received.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    return next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)


def test_a_request_as_it_should_be(either: Service) -> None:
    answer = send(either, head(PREDICT, JSON, length(BODY)) + BODY)
    assert (answer.status, json.loads(answer.body)["client_id"]) == (200, "c-1")
    assert "x-content-type-options: nosniff" in answer.head


# Where a value is of a type, its first bracket is a fault already.
JSON_ROUTES = [
    (PREDICT, b'{"client_id":"a","inputs":{"image":%b}}', 400),
    (PREDICT, b'{"instances":[{"client_id":"a","inputs":{"image":%b}}]}', 400),
    (PREDICT, b'{"client_id":%b}', 422),
    ("/v2/models/digits/infer", b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[1],"data":%b}]}', 400),
    ("/v1/models/digits/feedback", b'{"client_id":%b}', 422),
    ("/v1/models/digits/reviews/claim", b'{"reviewer":"r","filters":%b}', 422),
    ("/v1/models/digits/reviews/x/resolve", b'{"token":%b}', 422),
    ("/v1/models/digits/split", b'{"champion":"v1","rules":%b}', 400),
    ("/predict", b'{"model":"digits","instances":[{"x":%b}]}', 400),
]


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("depth", [1_000, 100_000])
@pytest.mark.parametrize(("path", "body", "status"), JSON_ROUTES)
def test_json_that_is_nested_deeply(
    either: Service, path: str, body: bytes, status: int, depth: int, closes: bool
) -> None:
    before = either.log.read_text()
    body %= b"[" * depth + b"]" * depth * closes
    lines = [JSON, length(body), 'If-Match: "1"', f"Authorization: Bearer {either.token}"]
    answer = send(either, head(path, *lines, method="PUT" if path.endswith("split") else "POST") + body)
    assert (answer.status, answer.kind) == (status, "malformed-body" if status == 400 else "invalid-request")
    assert "Traceback" not in either.log.read_text().removeprefix(before)


def test_a_line_that_is_nested_deeply_fails_alone(either: Service) -> None:
    deep = b'{"client_id":"a","inputs":{"image":' + b"[" * 5000 + b"]" * 5000 + b"}}\n"
    with either.client() as client:
        answer = client.post(
            PREDICT, content=deep + BODY + b"\n", headers={"Content-Type": "application/x-ndjson"}
        )
    first, second = map(json.loads, answer.text.splitlines())
    assert (first["status"], second["client_id"]) == (400, "c-1")


TOO_LARGE = [
    (PREDICT, [JSON], 413),
    *((PREDICT, lines, 413) for lines, _ in FILES),
    *((PREDICT, [*lines, "Authorization: Bearer wrong"], 401) for lines, _ in FILES),
    (PREDICT, [JSON, "Authorization: Bearer wrong"], 401),
    (PREDICT, ["Content-Type: text/plain"], 415),
    (PREDICT, [JSON, "Content-Encoding: br"], 415),
    ("/v1/models/cats/predict", [JSON], 404),
    ("/v1/models/digits/feedback", [JSON], 413),
    ("/v2/models/digits/infer", [JSON], 413),
    ("/v2/models/digits/infer", ["Content-Type: text/plain"], 415),
    ("/v1/models/digits/reviews/claim", [JSON], 401),
    ("/console/login", ["Content-Type: application/x-www-form-urlencoded"], 413),
    ("/predict", [JSON], 413),
    ("/predict", [JSON, "Authorization: Bearer wrong"], 401),
    ("/predict", ["Content-Type: multipart/form-data; boundary=x"], 415),
    ("/predict", ["Content-Type: application/vnd.bentoml+pickle"], 415),
    ("/nothing", [JSON], 404),
    (PREDICT + "/x", [JSON], 404),
]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize(("path", "lines", "status"), TOO_LARGE)
def test_a_client_reads_why_its_large_body_is_refused(
    either: Service, path: str, lines: list[str], status: int, framing: str
) -> None:
    body = b'{"a":"' + b"x" * 9 * MIB + b'"}'
    if framing == "chunked":
        start = head(path, *lines, "Transfer-Encoding: chunked")
        answer = send(either, start, b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n")
    else:
        close = ["Connection: close"] if framing == "close" else []
        answer = send(either, head(path, *lines, length(body), *close), body)
    assert answer.status == status
    assert "connection: close" in answer.head


def test_a_body_without_a_token_is_not_kept_in_memory(either: Service) -> None:
    workers = psutil.Process(either.process.pid).children(recursive=True)
    before = sum(worker.memory_info().rss for worker in workers)
    host, port = either.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head("/predict", JSON, "Authorization: Bearer wrong", f"Content-Length: {300 * MIB}"))
        assert connection.recv(12) == b"HTTP/1.1 401"
        sent = 0
        try:
            while sent < 300 * MIB:
                sent += connection.send(b"x" * MIB)
        except (ConnectionError, TimeoutError):
            pass
        grown = sum(worker.memory_info().rss for worker in workers if worker.is_running()) - before
    assert sent < 200 * MIB, "what comes after the answer is read within bounds"
    assert grown < 100 * MIB


def test_a_client_that_waits_before_it_sends_is_told_at_once(either: Service) -> None:
    start = time.monotonic()
    answer = send(either, head(PREDICT, JSON, f"Content-Length: {9 * MIB}", "Expect: 100-continue"))
    assert answer.status == 413
    assert time.monotonic() - start < 15, "it is not waited for a body that does not come"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"no json", 400),
        ("application/json", b'{"model":"digits"}', 422),
        ("application/json", b'{"model":7,"instances":[]}', 422),
        ("application/json", b'{"model":"digits","instances":[{"client_id":"a"}]}', 422),
        ("application/json", b'{"model":"digits","instances":"told-in-confidence"}', 422),
        (
            "application/json",
            b'{"model":"digits","instances":[{"client_id":"a","inputs":{"image":"told-in-confidence"}}]}',
            422,
        ),
        ("application/json", b'{"model":"cats","instances":[]}', 404),
        ("application/json", b"", 400),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("", b"{}", 415),
    ],
)
def test_what_the_native_api_does_not_take(either: Service, content_type: str, body: bytes, status: int) -> None:
    before = either.log.read_text()
    lines = [f"Content-Type: {content_type}"] if content_type else []
    answer = send(either, head("/predict", *lines, length(body)) + body)
    assert answer.status == status
    log = either.log.read_text().removeprefix(before)
    assert "Traceback" not in log
    assert "told-in-confidence" not in log


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:3000", 200),
        ("app.localhost", 200),
        ("127.0.0.1:3000", 200),
        ("127.8.9.10", 200),
        ("[::1]:3000", 200),
        ("evil.example", 421),
        ("localhost.evil.example:3000", 421),
        ("10.0.0.7", 421),
        ("[::1].evil.example", 421),
        ("[127.0.0.1", 421),
        ("localhost:3000:evil", 421),
        ("localhost.", 200),
        ("evil.example/.localhost", 421),
        ("", 421),
    ],
)
def test_an_open_service_answers_to_this_machine_s_names(either: Service, host: str, status: int) -> None:
    assert send(either, head("/v1/models", method="GET", host=f"Host: {host}")).status == status
    answer = send(either, head(PREDICT, JSON, length(BODY), host=f"Host: {host}") + BODY)
    assert answer.status == status
    if status == 421:
        assert answer.kind == "misdirected-request"
        token = f"Authorization: Bearer {either.token}"
        assert send(either, head("/v1/models", token, method="GET", host=f"Host: {host}")).status == 200


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-For: 10.0.0.7",
        "Forwarded: for=10.0.0.7",
        "X-Real-IP: 10.0.0.7",
        "Via: 1.1 proxy",
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://[",
        "Origin: https://evil.example\r\nSec-Fetch-Site: none",
        "Origin: https://evil.example\r\nSec-Fetch-Site: other",
        "X-Forwarded-Server: proxy",
        "X-Client-IP: 10.0.0.7",
        "Sec-Fetch-Site: cross-site",
    ],
)
def test_what_comes_through_a_proxy_or_from_another_s_page_needs_a_token(either: Service, line: str) -> None:
    for path in (PREDICT, "/v2/models/digits/infer", "/predict"):
        assert send(either, head(path, JSON, length(BODY), line) + BODY).status == 401
    token = f"Authorization: Bearer {either.token}"
    assert send(either, head(PREDICT, JSON, length(BODY), line, token) + BODY).status == 200


@pytest.mark.parametrize(
    "lines",
    [
        ["X: " + "x" * 200_000],
        [f"X-{number}: x" for number in range(20_000)],
        ["X" * 200_000 + ": x"],
        [f"X-{number}: {'x' * 900}" for number in range(90)],
        [f"X-{number}: x" for number in range(150)],
    ],
)
def test_headers_that_are_too_large(either: Service, lines: list[str]) -> None:
    answer = send(either, head("/v1/models", *lines, method="GET"))
    assert (answer.status, answer.kind) == (431, "headers-too-large")
    assert "x-content-type-options: nosniff" in answer.head
    unfinished = head("/v1/models", *lines, method="GET")[:-4]
    assert send(either, unfinished).status == 431


def test_a_target_that_is_too_long(either: Service) -> None:
    assert send(either, head("/v1/models/" + "x" * 200_000, method="GET")).status == 431
    assert send(either, b"GET /" + b"x" * 200_000).status == 431


def test_http_1_1_without_a_host(either: Service) -> None:
    for request in (
        head(PREDICT, JSON, length(BODY), host="") + BODY,
        head("/v1/models", method="GET", host=""),
        head("/v1/models", "Host: localhost", method="GET"),  # twice
        head("/v1/models", "Authorization: Bearer a", "Authorization: Bearer b", method="GET"),
        head(PREDICT, JSON, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head(PREDICT, JSON, "Transfer-Encoding: identity") + BODY,
        head(PREDICT, JSON, "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
        head(PREDICT, JSON, "Transfer-Encoding: chunked").replace(b"/1.1", b"/1.0") + b"0\r\n\r\n",
        head("/v1/models", method="GET").replace(b"/1.1", b"/2.0"),
        head("ftp://localhost/v1/models", method="GET"),
    ):
        answer = send(either, request)
        assert (answer.status, answer.kind) == (400, "malformed-request")
    assert send(either, b"GET /v1/models HTTP/1.0\r\n\r\n").status == 200


@pytest.mark.parametrize("target", [f"http://localhost{PREDICT}", f"http://127.0.0.1:3000{PREDICT}?a=b"])
def test_an_absolute_target_is_as_its_path(either: Service, target: str) -> None:
    assert send(either, head(target, JSON, length(BODY)) + BODY).status == 200
    foreign = target.replace("localhost", "evil.example").replace("127.0.0.1", "evil.example")
    assert send(either, head(foreign, JSON, length(BODY)) + BODY).status == 421


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"*" * 100_000, b"GET x HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http(either: Service, garbage: bytes) -> None:
    answer = send(either, garbage)
    assert answer.status in (400, 431)
    assert "connection: close" in answer.head


def test_a_client_that_closes_its_side_gets_its_answers(either: Service) -> None:
    request = head(PREDICT, JSON, length(BODY)) + BODY
    assert send(either, request, half_close=True).status == 200
    assert send(either, head("/v1/models", method="GET"), half_close=True).status == 200
    lines = [head(PREDICT, "Content-Type: application/x-ndjson", f"Content-Length: {len(BODY)}"), BODY]
    assert json.loads(send(either, *lines, half_close=True).body.split(b"\r\n")[1])["client_id"] == "c-1"


def test_requests_sent_together_by_a_client_that_closes_its_side(service: Service) -> None:
    host, port = service.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall((head(PREDICT, JSON, length(BODY)) + BODY) * 3)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while more := connection.recv(65536):
            received += more
    assert received.count(b"HTTP/1.1 200") == 3


def test_a_body_may_begin_with_a_byte_order_mark(either: Service) -> None:
    mark = b"\xef\xbb\xbf"
    for path, body, content_type in (
        (PREDICT, BODY, JSON),
        (PREDICT, BODY + b"\n", "Content-Type: application/x-ndjson"),
        ("/predict", json.dumps({"model": "digits", "instances": [row()]}).encode(), JSON),
    ):
        answer = send(either, head(path, content_type, length(mark + body)) + mark + body)
        assert answer.status == 200
        assert b"problem" not in answer.body
    broken = send(
        either, head("/v2/models/digits/infer", length(mark + b'{"inputs":[]}')) + mark + b'{"inputs":[]}'
    )
    assert broken.kind == "invalid-request", "it was read"


@pytest.mark.parametrize(
    "path", [PREDICT, "/v1/models", "/v2/models/digits/infer", "/openapi.json", "/console/login"]
)
def test_options_say_the_methods_and_allow_no_other_origin(either: Service, path: str) -> None:
    lines = ["Origin: https://app.example", "Access-Control-Request-Method: POST"]
    answer = send(either, head(path, *lines, method="OPTIONS"))
    assert answer.status == 204
    assert "allow: " in answer.head
    assert "access-control" not in answer.head


def test_head_is_as_get_without_a_body(either: Service) -> None:
    with either.client() as client:
        for path in (
            "/v1/models",
            "/openapi.json",
            "/metrics",
            "/v2/health/live",
            "/console/login",
            "/",
            "/livez",
        ):
            answer = client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")


def test_metrics_do_not_grow_with_what_is_asked_for(either: Service) -> None:
    """Neither what is shown, nor what the workers keep in files beside that."""
    asked = (
        "/v1/{}",
        "/v1/models/{}",
        "/v2/models/{}",
        "/v1/models/{}/predict",
        "/v1/models/digits/assignments/{}",
    )
    with either.client() as client:
        for number in range(5_000):
            if number == len(asked):
                before = len(client.get("/metrics").content)
            client.get(asked[number % len(asked)].format(f"asked-{number}"))
        assert len(client.get("/metrics").content) < before + 20_000
    children = psutil.Process(either.process.pid).children(recursive=True)
    folders = {one.environ().get("PROMETHEUS_MULTIPROC_DIR") for one in children} - {None}
    files = [file for folder in folders for file in Path(str(folder)).glob("*.db")]
    assert files
    assert [file for file in files if b"asked-" in file.read_bytes()] == []


def test_what_the_service_tells_to_nobody_in_particular(either: Service) -> None:
    with either.client() as client:
        for path in ("/livez", "/readyz", "/healthz", "/metrics", "/", "/console/login", "/v2/health/ready"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff")
        page = client.get("/")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert "://" not in page.text.replace("http://www.w3.org/2000/svg", "")
        for path in ("/static_content/main.css", "/assets/x", "/docs"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["x-content-type-options"]) == (404, "nosniff")


def test_pages_of_the_configured_origins_may_call(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("cors")
    set_split(home, *TRIAL)
    origin = {"Origin": "https://app.example"}
    with (
        run_service(
            home, ROLLOUT_WORKERS="1", ROLLOUT_CORS_ORIGINS="https://app.example, https://b.example:8443"
        ) as running,
        running.client(headers=origin) as client,
    ):
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        allowed = client.options(PREDICT, headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == origin["Origin"]
        assert allowed.headers["x-content-type-options"] == "nosniff"
        answer = client.post(PREDICT, json=row())
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin["Origin"])
        foreign = {"Origin": "https://c.example"}
        assert client.options(PREDICT, headers=asked | foreign).status_code == 400
        refused = client.post(PREDICT, json=row(), headers=foreign)
        assert refused.status_code == 401
        assert "access-control-allow-origin" not in refused.headers
        assert "access-control-allow-origin" not in client.get("/console/login").headers
        assert httpx.post(running.base + PREDICT, json=row()).status_code == 200


def test_a_stopping_worker_leaves_a_client_that_reads_nothing(
    bundles: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("stall")
    set_split(home, *TRIAL)
    with run_service(home, ROLLOUT_WORKERS="1") as running:
        host, port = running.base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            lines = BODY.replace(b"\n", b"") + b"\n"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head(PREDICT, "Content-Type: application/x-ndjson", "Transfer-Encoding: chunked"))
            connection.settimeout(2)
            with pytest.raises(TimeoutError):
                while True:
                    connection.sendall(b"%x\r\n%b\r\n" % (len(lines), lines))
            start = time.monotonic()
            assert running.stop() == 0
            assert time.monotonic() - start < 15
