"""Bad input over HTTP: the right status, a problem document that names the field, and nothing reaches the model."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest

from tests.conftest import Service, settled, wait_for_metric
from tests.images import image, png, row

Call = Callable[..., httpx.Response]


def bomb() -> str:
    file = io.BytesIO()
    PIL.Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def with_pixel(value: Any) -> dict[str, Any]:
    body = row()
    body["inputs"]["image"][3][4] = value
    return body


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:rollout:problem:{kind}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


@pytest.mark.parametrize(
    ("body", "pointers", "words"),
    [
        ({"inputs": {"image": image()}}, ["/client_id"], "is required"),
        ({"client_id": "c"}, ["/inputs"], "is required"),
        ({}, ["/client_id", "/inputs"], "is required"),
        (row(client_id=""), ["/client_id"], "1 to 128 printable characters"),
        (row(client_id="x" * 129), ["/client_id"], "1 to 128 printable characters"),
        (row(client_id="tab\there"), ["/client_id"], "1 to 128 printable characters"),
        (row(client_id="bell\x07"), ["/client_id"], "1 to 128 printable characters"),
        (row() | {"client_id": 7}, ["/client_id"], "1 to 128 printable characters"),
        (row() | {"client_id": None}, ["/client_id"], "1 to 128 printable characters"),
        (row(key="k" * 129), ["/key"], "1 to 128 printable characters"),
        (row(key="line\nbreak"), ["/key"], "1 to 128 printable characters"),
        (row() | {"extra": 1}, [""], "unknown field extra"),
        (row() | {"inputs": []}, ["/inputs"], "must be an object that holds the model's inputs by name"),
        (row() | {"inputs": {}}, ["/inputs/image"], "is required"),
        (row() | {"inputs": {"image": image(), "x": 1}}, ["/inputs/x"], "it takes image"),
        (row() | {"inputs": {"image": image()[:31]}}, ["/inputs/image"], "32×32"),
        (row() | {"inputs": {"image": [*image()[:31], [0]]}}, ["/inputs/image/31"], "32×32"),
        (row() | {"inputs": {"image": [[image()]]}}, ["/inputs/image/0/0"], "32×32"),
        (row() | {"inputs": {"image": None}}, ["/inputs/image"], "32×32"),
        (with_pixel(256), ["/inputs/image/3/4"], "from 0 to 255"),
        (with_pixel(-1), ["/inputs/image/3/4"], "from 0 to 255"),
        (with_pixel(0.5), ["/inputs/image/3/4"], "whole numbers"),
        (with_pixel("9"), ["/inputs/image/3/4"], "whole numbers"),
        (with_pixel(True), ["/inputs/image/3/4"], "whole numbers"),
        (with_pixel(None), ["/inputs/image/3/4"], "whole numbers"),
        (row() | {"inputs": {"image": "hello, world"}}, ["/inputs/image"], "not base64"),
        (row() | {"inputs": {"image": "aGVsbG8="}}, ["/inputs/image"], "neither a PNG nor a JPEG"),
        (row() | {"inputs": {"image": bomb()}}, ["/inputs/image"], "at most 16,000,000"),
        ({"instances": []}, ["/instances"], "1 to 1024"),
        ({"instances": [row()] * 1025}, ["/instances"], "1 to 1024 instances, not 1025"),
        ({"instances": 3}, ["/instances"], "array"),
        ({"instances": [row()], "client_id": "c"}, ["/instances"], "stands alone"),
        ({"instances": [row(), {"client_id": "c"}, row()]}, ["/instances/1/inputs"], "is required"),
        ({"instances": [row(), row(client_id="\x00"), row()]}, ["/instances/1/client_id"], "printable"),
        ({"instances": [with_pixel(-1), row(), with_pixel(999)]}, ["/instances/0/inputs/image/3/4", "/instances/2/inputs/image/3/4"], "255"),
        ([row()], [""], "expected object"),
    ],
)  # fmt: skip
def test_bodies_that_do_not_fit(predict: Call, body: Any, pointers: list[str], words: str) -> None:
    document = problem(predict(body), 422, "invalid-request")
    assert [error["pointer"] for error in document["errors"]] == [f"#{pointer}" for pointer in pointers]
    assert words in document["errors"][0]["detail"]


@pytest.mark.parametrize(
    "text", ["", "{", '{"client_id": "c", "inputs": {"image": [[1,', '{"client_id": NaN}', "\xff"]
)
def test_bodies_that_are_not_json(service: Service, text: str) -> None:
    with service.client() as client:
        headers = {"content-type": "application/json"}
        response = client.post("/v1/models/digits/predict", content=text.encode("latin-1"), headers=headers)
    problem(response, 400, "malformed-body")


def test_an_answer_does_not_repeat_all_that_is_wrong(service: Service) -> None:
    unknown = {f"{number}": 1 for number in range(50_000)} | {"x" * 100_000: 1}
    with service.client() as client:
        response = client.post("/v1/models/digits/predict", json=row() | {"inputs": unknown})
    found = problem(response, 422, "invalid-request")["errors"]
    assert found[0] == {"pointer": "#/inputs/image", "detail": found[0]["detail"]}
    assert len(response.content) < 100_000


def test_a_truncated_body_and_nan_inside_inputs(service: Service) -> None:
    with service.client() as client:
        for text in (
            '{"client_id": "c", "inputs": {"image": [[NaN]]}}',
            '{"client_id": "c", "inputs": {"image": "\\ud800"}}',
        ):
            headers = {"content-type": "application/json"}
            response = client.post("/v1/models/digits/predict", content=text, headers=headers)
            assert response.status_code in (400, 422)
            assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "headers", [{"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {}]
)
def test_another_content_type(service: Service, headers: dict[str, str]) -> None:
    with service.client() as client:
        response = client.post("/v1/models/digits/predict", content=b"{}", headers=headers)
    assert "Content-Type: application/json" in problem(response, 415, "unsupported-media-type")["detail"]


def test_a_charset_is_no_other_content_type(service: Service) -> None:
    with service.client() as client:
        headers = {"content-type": "Application/JSON; charset=utf-8"}
        assert client.post("/v1/models/digits/predict", json=row(), headers=headers).status_code == 200


def test_a_body_over_the_limit(service: Service) -> None:
    with service.client() as client:
        headers = {"content-type": "application/json"}
        response = client.post("/v1/models/digits/predict", content=b" " * (8 * 1024 * 1024 + 1), headers=headers)
        assert "8,388,608" in problem(response, 413, "body-too-large")["detail"]

        def chunks() -> Any:
            for _ in range(9):
                yield b" " * 1024 * 1024

        response = client.post("/v1/models/digits/predict", content=chunks(), headers=headers)
        problem(response, 413, "body-too-large")


def test_unknown_models_and_addresses(service: Service) -> None:
    with service.client() as client:
        response = client.post("/v1/models/cats/predict", json=row())
        assert "this service has digits" in problem(response, 404, "unknown-model")["detail"]
        problem(client.get("/v1/models/cats"), 404, "unknown-model")
        problem(client.get("/v1/nothing"), 404, "not-found")
        problem(client.post("/v1/models/a/b/c/predict", json=row()), 404, "unknown-model")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE"])
def test_wrong_methods(service: Service, method: str) -> None:
    with service.client() as client:
        response = client.request(method, "/v1/models/digits/predict")
    assert "takes POST, not" in problem(response, 405, "method-not-allowed")["detail"]
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1.5", "600001", "9" * 400, "9" * 5000])
def test_a_timeout_that_is_none(predict: Call, value: str) -> None:
    document = problem(predict(row(), headers={"x-request-timeout": value}), 422, "invalid-request")
    assert "milliseconds from 1 to 600000" in document["detail"]


def test_nothing_of_this_is_an_internal_error_or_reached_the_model(service: Service, predict: Call) -> None:
    counted = "rollout_predictions_total"
    with service.client() as client:
        before = settled(client, counted)
        assert predict({"instances": [row()] * 3 + [with_pixel(-1)]}).status_code == 422
        assert settled(client, counted) == before, "a request is refused whole"
        assert predict({"instances": [row()] * 3}).status_code == 200
        wait_for_metric(client, before + 3, counted)
        assert settled(client, counted) == before + 3
    assert service.metric("rollout_errors_total", 'type="internal-error"') == 0


def test_images_as_files_are_scored_like_lists(predict: Call) -> None:
    pixels = np.array(image(7), np.uint8)
    by_list = predict(row(7)).json()
    for file in (pixels, pixels[::4, ::4], pixels.repeat(5, 0).repeat(5, 1)):
        assert predict(row() | {"inputs": {"image": png(file)}}).json() == by_list
