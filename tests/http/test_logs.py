"""What operators read: a line for each failed request, JSON where it is wanted, traces, and no floods."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.http.request_log import continue_trace
from rollout.logs import JsonFormatter, RepeatHandler, TextFormatter
from tests.conftest import TRIAL, Service, run_service, set_split
from tests.images import row, three_or_eight
from tests.service.test_bentoml import SERVE

PREDICT = "/v1/models/digits/predict"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CAME = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(scope="module", params=["rollout serve", "bentoml serve"])
def logged(
    request: pytest.FixtureRequest, bundles: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that logs every request in JSON, under one of its two servers."""
    home = tmp_path_factory.mktemp("logged")
    set_split(home, *TRIAL)
    settings = {"ROLLOUT_LOG": "json", "ROLLOUT_ACCESS_LOG": "1", "ROLLOUT_WORKERS": "1"}
    with run_service(home, SERVE if request.param == "bentoml serve" else None, **settings) as running:
        yield running


def line(service: Service, trace: str) -> dict[str, Any]:
    """Waits for the line of a request."""
    give_up = time.monotonic() + 60
    while True:
        for text in service.log.read_text().splitlines():
            if trace in text:
                found: dict[str, Any] = json.loads(text)
                return found
        assert time.monotonic() < give_up, service.log.read_text()
        time.sleep(0.05)


def trace_of(answer: httpx.Response) -> str:
    (found,) = re.findall(r"^00-([0-9a-f]{32})-[0-9a-f]{16}-0[01]$", answer.headers["traceparent"])
    return str(found)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "fields"),
    [
        (
            "POST",
            PREDICT,
            row(client_id="secret-client"),
            200,
            {"route": "/v1/models/{model}/predict", "arm": "champion"},
        ),
        (
            "POST",
            PREDICT,
            {},
            422,
            {"route": "/v1/models/{model}/predict", "problem": "invalid-request", "model": "digits"},
        ),
        (
            "GET",
            "/v1/models/digits/assignments/secret-client",
            None,
            200,
            {"route": "/v1/models/{model}/assignments/{client_id:path}"},
        ),
        ("GET", "/v1/models/cats", None, 404, {"problem": "unknown-model"}),
        ("GET", "/v1/secret-client", None, 404, {"route": "-", "problem": "not-found"}),
        (
            "POST",
            "/predict",
            {"model": "cats", "instances": []},
            404,
            {"route": "/predict", "problem": "unknown-model"},
        ),
        ("GET", "/livez", None, 200, {"route": "/livez"}),
    ],
)
def test_a_request_is_one_line(
    logged: Service, method: str, path: str, body: Any, status: int, fields: dict[str, str]
) -> None:
    with logged.client() as client:
        answer = client.request(method, path, json=body)
    assert answer.status_code == status
    found = line(logged, trace_of(answer))
    assert found["level"] == ("WARNING" if status >= 400 else "INFO")
    assert (found["method"], found["status"]) == (method, status)
    assert 0 < found["duration_ms"] < 10_000
    assert {name: found[name] for name in fields} == fields
    assert "secret-client" not in json.dumps(found)
    assert "exception" not in found


def test_the_trace_that_comes_goes_on_and_into_the_review_item(logged: Service) -> None:
    body = {"client_id": "traced", "key": "traced", "inputs": {"image": three_or_eight()}}
    with logged.client(headers={"traceparent": CAME}) as client:
        answer = client.post(PREDICT, json=body)
    assert answer.json()["review"] == "queued"
    assert trace_of(answer) == TRACE
    assert answer.headers["traceparent"] != CAME, "with a span of ours"
    with logged.admin() as admin:
        (item,) = admin.get("/v1/models/digits/reviews?client_id=traced").json()["reviews"]
    assert item["traceparent"] == answer.headers["traceparent"]


def test_a_flood_of_the_same_is_one_line_with_a_count(logged: Service) -> None:
    with logged.client() as client:
        for _ in range(50):
            client.post("/v1/models/digits/feedback", json={"flood": 1})
    give_up, count = time.monotonic() + 60, 0
    while count < 50:
        assert time.monotonic() < give_up, f"{count} of 50 are told"
        time.sleep(0.1)
        lines = [json.loads(text) for text in logged.log.read_text().splitlines() if "/feedback" in text]
        count = sum(one.get("count", 1) for one in lines)
    assert len(lines) <= 10
    assert count == 50


def test_every_line_is_json(logged: Service) -> None:
    for text in logged.log.read_text().splitlines():
        # BentoML's parent process, which starts the workers, has lines of its own.
        if not text.startswith("The admin token") and "[cli]" not in text:
            assert {"time", "level", "logger", "message"} <= json.loads(text).keys()


def test_without_the_access_log_only_failures_are_lines_of_text(service: Service) -> None:
    with service.client() as client:
        good, bad = client.post(PREDICT, json=row()), client.post(PREDICT, json={"inputs": 1})
    give_up = time.monotonic() + 60
    while trace_of(bad) not in service.log.read_text():
        assert time.monotonic() < give_up
        time.sleep(0.05)
    log = service.log.read_text()
    assert re.search(
        r"WARNING rollout.http.requests: POST /v1/models/\{model\}/predict 422 in [\d.]+ ms, model digits", log
    )
    assert trace_of(good) not in log


@pytest.mark.parametrize(
    "came",
    [
        None,
        b"",
        b"00-0-0-0",
        CAME.upper().encode(),
        b"ff" + CAME[2:].encode(),
        CAME.replace(TRACE, "0" * 32).encode(),
    ],
)
def test_a_trace_that_is_none_is_begun(came: bytes | None) -> None:
    begun = continue_trace(came)
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-00", begun)
    assert TRACE.encode() not in begun


def test_a_fault_of_ours_keeps_its_traceback_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    handler = RepeatHandler("json")
    logger = logging.getLogger("rollout.test_logs")
    logger.propagate = False
    logger.addHandler(handler)
    for _ in range(3):
        try:
            raise RuntimeError("nobody foresaw this")
        except RuntimeError:
            logger.exception("an unforeseen error")
    handler.flush()
    logger.removeHandler(handler)
    (text,) = capsys.readouterr().err.splitlines()
    found = json.loads(text)
    assert found["count"] == 3
    assert found["message"] == "an unforeseen error (3 times within a second)"
    assert 'raise RuntimeError("nobody foresaw this")' in found["exception"]
    assert isinstance(handler._target.formatter, JsonFormatter)


def test_settings_say_what_is_wrong(tmp_path: Path) -> None:
    from rollout.config import load_settings
    from rollout.errors import ConfigError

    with pytest.raises(ConfigError, match="ROLLOUT_LOG"):
        load_settings({"ROLLOUT_LOG": "xml"})
    assert load_settings({"ROLLOUT_ACCESS_LOG": "1"}).access_log


def test_what_others_wrote_into_a_line_tells_a_terminal_nothing_and_begins_no_other() -> None:
    forged = "10:00:00 INFO    rollout.service: all is well"
    said = "drift of digits: \x1b[2K\x9b1A\u202e moved\n" + forged
    try:
        raise ValueError(said)
    except ValueError as error:
        found = (type(error), error, error.__traceback__)
    record = logging.LogRecord("rollout", logging.ERROR, __file__, 1, "%s", (said,), found)
    first, *others = TextFormatter().format(record).split("\n")
    assert "\\x1b[2K\\x9b1A\\u202e moved" in first
    assert all(one.isprintable() for one in (first, *others))
    assert all(one.startswith("  ") for one in others)
