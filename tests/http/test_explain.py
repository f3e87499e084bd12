"""``POST /v1/models/{model}/explain`` on a running service: what it says, and what it refuses."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import jsonschema
import numpy as np
import PIL.Image
import psutil
import pytest

from tests.conftest import TRIAL, Service, run_service, set_split
from tests.images import image, png

PREDICT, EXPLAIN = "/v1/models/digits/predict", "/v1/models/digits/explain"
SCAN = png(np.array(image(3), np.uint8))
BODY = {"client_id": "acme", "key": "k", "inputs": {"image": SCAN}}
SECONDS = "120"  # a busy machine takes long to import torch


@pytest.fixture(scope="module")
def explaining(more_bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker that explains one thing at a time; digits has v2 on trial."""
    home = tmp_path_factory.mktemp("explaining")
    set_split(home, *TRIAL)
    for model in ("languages", "departures"):
        set_split(home, "--champion", "v2", model=model)
    with run_service(home, ROLLOUT_WORKERS="1", ROLLOUT_EXPLAIN_TIMEOUT_S=SECONDS) as running:
        yield running


@pytest.fixture
def client(explaining: Service) -> Iterator[httpx.Client]:
    with explaining.client() as client:
        client.timeout = httpx.Timeout(float(SECONDS))
        yield client


def explain(client: httpx.Client, body: Any = BODY, model: str = "digits", **options: Any) -> Any:
    answer = client.post(f"/v1/models/{model}/explain", json=body, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


REVIEWED = "rollout_review_items_total"
# Once for each prediction that is asked for alone.
ONCE = ("rollout_predictions_total", "rollout_batch_rows_sum", "rollout_request_seconds_count")


def counted(client: httpx.Client) -> dict[str, float]:
    """Returns what is counted of the predictions of digits."""
    found = dict.fromkeys((REVIEWED, *ONCE), 0.0)
    for line in client.get("/metrics").text.splitlines():
        name, _, labels = line.partition("{")
        if name in found and 'model="digits"' in labels:
            found[name] += float(line.rpartition(" ")[2])
    return found


def settled(client: httpx.Client, before: dict[str, float], more: int) -> dict[str, float]:
    """Waits until more predictions are counted, which happens behind the answers, and returns what is counted."""
    end = time.monotonic() + 60
    while any((found := counted(client))[name] < before[name] + more for name in ONCE):
        assert time.monotonic() < end, (before, found)
    return found


def client_of(client: httpx.Client, arm: str) -> str:
    """Returns a client ID that gets an arm."""
    names = (f"client-{number}" for number in range(500))
    return next(
        name for name in names if client.get(f"/v1/models/digits/assignments/{name}").json()["arm"] == arm
    )


def test_explains_what_the_same_client_is_predicted_and_counts_nothing(client: httpx.Client) -> None:
    start = counted(client)
    names = {arm: client_of(client, arm) for arm in ("champion", "challenger")}
    predicted = {arm: client.post(PREDICT, json=BODY | {"client_id": name}).json() for arm, name in names.items()}
    before = settled(client, start, 2)
    for arm, name in names.items():
        found, answer = explain(client, BODY | {"client_id": name}), predicted[arm]
        assert answer["arm"] == arm
        assert (found["arm"], found["version"], found["variant"]) == tuple(
            answer[part] for part in ("arm", "version", "variant")
        )
        assert (found["label"], found["value"]) == (answer["label"], answer["confidence"])
        assert found["explained"] == f"the score of {answer['label']}"
        assert found["client_id"] == name
        (one,) = found["passes"]
        assert one["evaluations"] == len(found["attributions"]) + 2
        assert any(each["attribution"] for each in found["attributions"])
    client.post(PREDICT, json=BODY | {"client_id": names["champion"]})
    after = settled(client, before, 1)
    assert {name: after[name] - before[name] for name in ONCE} == dict.fromkeys(ONCE, 1)
    assert after[REVIEWED] == before[REVIEWED]
    assert 'rollout_explanation_seconds_count{model="digits"}' in client.get("/metrics").text


def test_two_calls_are_the_same_to_the_byte_and_a_file_is_as_base64(client: httpx.Client) -> None:
    first = client.post(EXPLAIN, json=BODY)
    headers = {"Content-Type": "image/png", "X-Client-Id": "acme"}
    second = client.post(f"{EXPLAIN}?key=k", content=base64.b64decode(SCAN), headers=headers)
    assert first.status_code == second.status_code == 200
    assert first.content == second.content


def test_picture_where_a_png_is_accepted(client: httpx.Client) -> None:
    answer = client.post(EXPLAIN, json=BODY, headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    picture = np.asarray(PIL.Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
    assert picture.shape[0] > 200
    assert np.ptp(picture, axis=2).max() > 80  # the map has colours


def test_label_that_the_caller_asks_for(client: httpx.Client) -> None:
    body = {"client_id": "acme", "inputs": {"text": "nove hotel"}}
    scores = client.post("/v1/models/languages/predict", json=body).json()["scores"]
    found = explain(client, body, "languages", params={"label": "pl"})
    assert (found["label"], found["value"]) == ("pl", scores["pl"])
    assert [(one["value"], one["span"]) for one in found["attributions"]] == [
        ("nove", [0, 4]),
        ("hotel", [5, 10]),
    ]


def test_shapley_values_of_features_add_up(client: httpx.Client) -> None:
    body = {"client_id": "acme", "inputs": {"at": "2013-07-12T17:00:00-04:00", "origin": "JFK"}}
    found = explain(client, body, "departures")
    (one,) = found["passes"]
    total = sum(each["attribution"] for each in found["attributions"])
    assert one["base_value"] + total == pytest.approx(found["value"], rel=1e-4)
    assert [each["field"] for each in found["attributions"]] == ["at", "origin"]


def test_answer_is_what_openapi_says(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    operation = described["paths"]["/v1/models/digits/explain"]["post"]
    content = operation["responses"]["200"]["content"]
    assert set(content) == {"application/json", "image/png"}
    schema = content["application/json"]["schema"] | {"components": described["components"]}
    jsonschema.validate(explain(client), schema)


@pytest.mark.parametrize(
    ("query", "pointer"), [({"label": "ten"}, "#/label"), ({"head": "x"}, "#/head"), ({"seed": "-1"}, "#/seed")]
)
def test_unknown_label_head_or_seed_is_refused(client: httpx.Client, query: dict[str, str], pointer: str) -> None:
    # Long before a process could say so.
    answer = client.post(EXPLAIN, json=BODY, params=query, headers={"X-Request-Timeout": "20"})
    assert problem(answer) == (422, "invalid-request")
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_several_instances_and_faulty_inputs_are_refused(client: httpx.Client) -> None:
    # What is refused for its number is not decoded: this is no image.
    answer = client.post(EXPLAIN, json={"instances": [BODY | {"inputs": {"image": "?"}}] * 1000})
    assert problem(answer) == (422, "invalid-request")
    assert answer.json()["detail"].endswith("/instances must hold one instance, not 1000")
    answer = client.post(EXPLAIN, json={"client_id": "acme", "inputs": {"image": [1]}})
    assert answer.json()["errors"][0]["pointer"].startswith("#/inputs/image")
    answer = client.post(f"{EXPLAIN}?labels=3", json=BODY)
    assert problem(answer) == (422, "invalid-request")


def test_too_long_is_504_and_its_process_ends(client: httpx.Client, explaining: Service) -> None:
    answer = client.post(EXPLAIN, json=BODY, headers={"X-Request-Timeout": "20"})
    assert problem(answer) == (504, "explain-timeout")
    assert "raise X-Request-Timeout," in answer.json()["detail"], "the caller's limit was the shorter one"
    assert not children(explaining)  # it was ended before the answer
    assert explain(client)["value"]  # and its place is free again


def test_too_many_at_once_are_sent_away_and_predictions_go_on(client: httpx.Client, explaining: Service) -> None:
    first: list[Any] = []
    thread = threading.Thread(target=lambda: first.append(explain(client)))
    thread.start()
    while not children(explaining):
        assert thread.is_alive()
    with explaining.client() as other:
        answer = other.post(EXPLAIN, json=BODY)
        assert other.post(PREDICT, json=BODY).status_code == 200
        assert thread.is_alive()
    thread.join()
    assert problem(answer) == (503, "overloaded")
    assert answer.headers["retry-after"] == "5"
    assert first[0]["value"]


def test_who_closes_the_connection_makes_room_at_once(client: httpx.Client, explaining: Service) -> None:
    body = json.dumps(BODY).encode()
    head = f"POST {EXPLAIN} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    url = urlsplit(explaining.base)
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        while not (found := children(explaining)):
            time.sleep(0.01)
    psutil.wait_procs(found, timeout=float(SECONDS))
    ended = time.monotonic()
    while problem(answer := client.post(EXPLAIN, json={**BODY, "inputs": {}})) == (503, "overloaded"):
        assert time.monotonic() < ended + 2
    assert problem(answer) == (422, "invalid-request")
    assert explaining.metric("rollout_errors_total", 'type="explain-timeout"') > 0, "it did not run to its end"


def children(service: Service) -> list[psutil.Process]:
    """Returns the processes that explain."""
    found = []
    for process in psutil.Process(service.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "rollout.explain.child" in process.cmdline():
                found.append(process)
    return found


def test_service_that_explains_nothing_says_so(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("silent")
    set_split(home, "--champion", "v1")
    with (
        run_service(home, ROLLOUT_WORKERS="1", ROLLOUT_EXPLAIN_AT_ONCE="0") as running,
        running.client() as client,
    ):
        answer = client.post(EXPLAIN, json=BODY)
        assert problem(answer) == (501, "explain-unavailable")
        assert "ROLLOUT_EXPLAIN_AT_ONCE" in answer.json()["detail"]
        assert json.loads(client.post(PREDICT, json=BODY).content)["label"] == "3"
