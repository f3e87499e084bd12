"""``POST /v1/models/{model}/predict`` with a line for each instance: order, faults, memory, back-pressure."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from rollout.routing.assignment import assign
from rollout.routing.split import Split
from tests.conftest import TRIAL, Service, run_service, set_split, settled, wait_for_metric
from tests.http.streams import Caller, exchange
from tests.images import row, three_or_eight

LINES = {"content-type": "application/x-ndjson"}
LONGEST = 100_000
MB = 1024 * 1024


@pytest.fixture(scope="module")
def alone(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one worker, whose memory can be watched, that takes no long lines."""
    home = tmp_path_factory.mktemp("alone")
    set_split(home, *TRIAL)
    with run_service(home, ROLLOUT_WORKERS="1", ROLLOUT_MAX_BODY_BYTES=str(LONGEST)) as running:
        yield running


def post(service: Service, body: Any, **headers: str) -> list[dict[str, Any]]:
    with service.client() as client:
        response = client.post(
            "/v1/models/digits/predict",
            content=body,
            headers=LINES | {name.replace("_", "-"): value for name, value in headers.items()},
        )
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def lines(*instances: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(instance).encode() + b"\n" for instance in instances)


def memory(service: Service) -> int:
    """Returns the bytes that only the worker has."""
    return sum(worker.memory_full_info().uss for worker in service.workers())


def test_answers_are_those_of_single_requests_in_the_order_of_the_lines(service: Service) -> None:
    instances = [row(number, f"c-{number % 50}", key=f"k-{number}") for number in range(300)]
    answers = post(service, lines(*instances))
    with service.client() as client:
        alone = [client.post("/v1/models/digits/predict", json=one).json() for one in instances[:60]]
    assert [answer["key"] for answer in answers] == [f"k-{number}" for number in range(300)]
    for answer, single in zip(answers, alone, strict=False):
        assert list(answer) == list(single)
        # Another worker may have found another variant to be the fastest: it decides the same, by other scores.
        exact = {name: answer[name] for name in answer if name not in ("scores", "confidence", "variant")}
        assert exact == {name: single[name] for name in exact}
        if answer["variant"] == single["variant"]:
            assert answer["scores"] == pytest.approx(single["scores"], abs=1e-5)


def test_a_bad_line_costs_only_itself(service: Service) -> None:
    def problem(answer: dict[str, Any], kind: str, status: int, line: int) -> list[str]:
        assert answer["type"] == f"urn:rollout:problem:{kind}"
        assert answer["title"]
        assert answer["detail"]
        assert (answer["status"], answer["line"]) == (status, line)
        return [error["pointer"] for error in answer.get("errors", [])]

    wrong = row(key="wrong")
    wrong["inputs"]["image"][3][4] = 256
    body = (
        json.dumps(row(key="first")).encode() + b"\r\n"
        b"\r\n"
        b"   \n"
        b"not JSON\n" + lines(wrong) + b'{"inputs": {}}\n'
        b'{"client_id": "", "inputs": {}}\n'
        b'{"client_id": "c", "inputs": {"image": []}, "more": 1}\n'
        b"[]\n"
        b'{"client_id": "\xff", "inputs": {}}\n'
        b'{"instances": []}\n' + json.dumps(row(key="last")).encode()
    )
    first, *bad, last = post(service, body)
    assert (first["key"], last["key"]) == ("first", "last")
    assert problem(bad[0], "malformed-body", 400, 4) == []
    assert problem(bad[1], "invalid-request", 422, 5) == ["#/inputs/image/3/4"]
    assert problem(bad[2], "invalid-request", 422, 6) == ["#/client_id"]
    assert problem(bad[3], "invalid-request", 422, 7) == ["#/client_id"]
    assert problem(bad[4], "invalid-request", 422, 8) == ["#"]
    assert problem(bad[5], "invalid-request", 422, 9) == ["#"]
    assert problem(bad[6], "malformed-body", 400, 10) == []
    assert problem(bad[7], "invalid-request", 422, 11) == ["#"]
    assert len(bad) == 8


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\r\n  "])
def test_nothing_in_is_nothing_out(service: Service, body: bytes) -> None:
    assert post(service, body) == []


def test_what_is_wrong_with_the_whole_is_one_problem_document(service: Service) -> None:
    def refused(path: str = "/v1/models/digits/predict", **headers: str) -> httpx.Response:
        with service.client() as client:
            response = client.post(
                path,
                content=lines(row()),
                headers=LINES | {name.replace("_", "-"): value for name, value in headers.items()},
            )
        assert response.headers["content-type"] == "application/problem+json"
        return response

    assert refused("/v1/models/cats/predict").status_code == 404
    assert refused(authorization="Bearer nobody").status_code == 401
    assert refused(**{"x-request-timeout": "soon"}).status_code == 422
    assert post(service, lines(row()), **{"content-type": "Application/X-NDJSON; charset=utf-8"})[0]["label"]


def test_a_line_over_the_limit_is_skipped(alone: Service) -> None:
    long = b" " * LONGEST
    first, second, third = post(alone, lines(row(key="a")) + long + lines(row(key="b")) + lines(row(key="c")))
    assert (first["key"], third["key"]) == ("a", "c")
    assert (second["type"], second["status"], second["line"]) == ("urn:rollout:problem:body-too-large", 413, 2)
    assert f"{LONGEST:,}" in second["detail"]


def test_an_endless_line_takes_no_memory(alone: Service) -> None:
    post(alone, lines(row()))
    before, most = memory(alone), 0

    def body() -> Iterator[bytes]:
        nonlocal most
        for number in range(200):
            yield b"[" * MB
            if number % 20 == 0:
                most = max(most, memory(alone))

    (answer,) = post(alone, body())
    assert answer["status"] == 413
    assert most - before < 8 * MB


def test_an_answer_comes_before_the_next_line_is_sent(service: Service) -> None:
    caller = Caller(service.base)
    for number in range(20):
        caller.send(row(number, key=f"k-{number}"))
        answer = caller.read()
        assert answer is not None
        assert answer["key"] == f"k-{number}"
    text = json.dumps(row(key="in pieces")).encode()
    caller.send(text[:100])
    time.sleep(0.05)
    caller.send(text[100:])
    caller.end()
    (last,) = caller.read_all()
    assert last["key"] == "in pieces"
    caller.close()


def test_a_long_stream_takes_no_memory(alone: Service) -> None:
    """20,000 rows, 60 MB: far more than the worker may grow by."""
    post(alone, lines(*(row(number) for number in range(300))))
    before, most, sent = memory(alone), 0, 0

    def body() -> Iterator[bytes]:
        nonlocal most, sent
        for start in range(0, 20_000, 100):
            part = lines(*(row(number % 360, f"c-{number}") for number in range(start, start + 100)))
            sent += len(part)
            yield part
            if start % 1000 == 0:
                most = max(most, memory(alone))

    answers = [answer["client_id"] for answer in exchange(alone.base, body())]
    assert answers == [f"c-{number}" for number in range(20_000)]
    assert sent > 55 * MB
    assert most - before < 12 * MB


def test_a_caller_who_does_not_read_is_not_read_from(alone: Service) -> None:
    part = lines(*(row(number) for number in range(100)))
    post(alone, part)
    before = memory(alone)
    usual = seconds_of(alone, 50)
    caller = Caller(alone.base)
    caller.do_not_read(2)
    sent = 0
    try:
        with pytest.raises(TimeoutError):
            while sent < 200 * MB:
                caller.send(part)
                sent += len(part)
        # What is under way lies in the sockets: answers that nobody reads, and lines that nobody reads either.
        assert sent < 100 * MB
        assert memory(alone) - before < 12 * MB
        assert seconds_of(alone, 50) < 3 * usual + 0.1
    finally:
        caller.close()
    assert post(alone, part)[99]["label"]


def seconds_of(service: Service, count: int) -> float:
    """Returns the median of what so many predictions take; where others compute as well, all take longer."""
    seconds = []
    with service.client() as client:
        for number in range(count):
            start = time.perf_counter()
            assert client.post("/v1/models/digits/predict", json=row(number)).status_code == 200
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def test_others_are_answered_beside_a_stream(alone: Service) -> None:
    usual = seconds_of(alone, 100)
    during: list[float] = []

    def body() -> Iterator[bytes]:
        for number in range(200):
            yield lines(*(row(number) for number in range(50)))
            if number == 60:
                during.append(seconds_of(alone, 100))

    assert sum(1 for _ in exchange(alone.base, body())) == 10_000
    assert during[0] < 3 * usual + 0.05


def test_blank_lines_cost_next_to_nothing_and_end_with_their_caller(alone: Service) -> None:
    blank = gzip.compress(b"\n" * 100 * MB)
    answers = post(alone, blank + gzip.compress(lines(row())), content_encoding="gzip")
    assert "label" in answers[0]
    host, port = alone.base.removeprefix("http://").split(":")
    endless = gzip.compress(b" \n{\n" * 25 * MB)
    head = f"POST /v1/models/digits/predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-ndjson\r\n"
    head += f"Content-Encoding: gzip\r\nContent-Length: {len(endless)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode() + endless)
        assert connection.recv(100)
    (worker,) = alone.workers()
    give_up, used = time.monotonic() + 15, 1.0
    while used >= 0.3:
        assert time.monotonic() < give_up, "the worker goes on with lines that nobody sends"
        before = sum(worker.cpu_times()[:2])
        time.sleep(1)
        used = sum(worker.cpu_times()[:2]) - before


def test_a_caller_who_hangs_up_leaves_nothing_behind(alone: Service) -> None:
    for ending in (b"", b'{"client_id": "half"'):
        for _ in range(5):
            caller = Caller(alone.base)
            caller.send(row(key="whole"), ending)
            assert caller.read() is not None
            caller.close()
    caller = Caller(alone.base)
    caller.send(*(row(number) for number in range(100)))
    caller.close()
    assert len(post(alone, lines(*(row(number) for number in range(100))))) == 100
    assert "Traceback" not in alone.log.read_text()


def test_clients_keep_their_arm(service: Service) -> None:
    split = Split(champion="v1", challenger="v2", share=0.1, experiment="digits-v1-v2")
    answers = post(service, lines(*(row(number, f"client-{number}") for number in range(200))))
    assert {answer["arm"] for answer in answers} == {"champion", "control", "challenger"}
    for answer in answers:
        assigned = assign(split, answer["client_id"])
        assert (answer["arm"], answer["version"]) == (assigned.arm, assigned.version)


def test_unsure_answers_go_to_review(service: Service) -> None:
    unsure = {"client_id": "batch-7", "inputs": {"image": three_or_eight()}}
    answers = post(service, lines(row(), unsure | {"key": "page-1"}, unsure | {"key": "page-2"}))
    assert [answer["review"] for answer in answers] == [None, "queued", "queued"]
    with service.admin() as admin:
        reviews = admin.get("/v1/models/digits/reviews?client_id=batch-7").json()["reviews"]
    assert [item["key"] for item in reviews] == ["page-1"], "the other key is linked to it"
    assert reviews[0]["inputs"] == unsure["inputs"]


def test_a_stream_counts_its_rows_and_not_its_time(alone: Service) -> None:
    names = ("rollout_predictions_total", "rollout_errors_total", "rollout_request_seconds_count")
    with alone.client() as client:
        before = [settled(client, name) for name in names]
        post(alone, lines(row(), row()) + b"nonsense\n")
        wait_for_metric(client, before[0] + 2, names[0])
        assert [settled(client, name) - old for name, old in zip(names, before, strict=True)] == [2, 1, 0]


def test_a_stopping_service_says_where_it_stopped(bundles: str, tmp_path: Any) -> None:
    set_split(tmp_path, *TRIAL)
    with run_service(tmp_path, ROLLOUT_WORKERS="1") as running:
        caller = Caller(running.base)
        caller.send(row(key="in time"))
        answer = caller.read()
        assert answer is not None
        assert answer["key"] == "in time"
        running.process.send_signal(signal.SIGTERM)
        (last,) = caller.read_all()
        assert (last["type"], last["status"]) == ("urn:rollout:problem:overloaded", 503)
        assert "line" not in last
        assert "send the lines again that have no answer" in last["detail"]
        caller.close()
        assert running.process.wait(20) == 0
        assert "Traceback" not in running.log.read_text()
