"""The Open Inference Protocol over HTTP, with Triton's own client and with requests that no client would make."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from openapi_spec_validator import validate
from tritonclient.utils import InferenceServerException

from rollout import __version__
from rollout.http.gateway import Gateway
from rollout.http.oip_http import OpenInference
from rollout.routing.assignment import assign
from rollout.routing.split import Split
from tests.conftest import TRIAL, Service, run_service, set_split
from tests.http.conftest import Endpoints
from tests.images import held_out, three_or_eight

IMAGES = held_out().inputs["image"][:64]
ON_TRIAL = Split(champion="v1", challenger="v2", share=0.1, experiment="digits-v1-v2")
CLIENTS: dict[str, str] = {assign(ON_TRIAL, f"c-{number}").arm: f"c-{number}" for number in range(100)}
INFER = "/v2/models/digits/infer"
OUTPUTS = ["label", "confidence", "scores", "review"]


@pytest.fixture
def client(endpoints: Endpoints) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(endpoints.http) as connected:
        yield connected


def images(pixels: NDArray[np.uint8] = IMAGES, *, binary: bool = True) -> list[triton.InferInput]:
    tensor = triton.InferInput("image", list(pixels.shape), "UINT8")
    return [tensor.set_data_from_numpy(pixels, binary_data=binary)]


def texts(name: str, *values: str, binary: bool = True) -> triton.InferInput:
    array = np.array(values, object)
    return triton.InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array, binary_data=binary)


def predictions(service: Service, client_id: str) -> list[dict[str, Any]]:
    instances = [{"client_id": client_id, "inputs": {"image": image.tolist()}} for image in IMAGES]
    with service.client() as client:
        answer = client.post("/v1/models/digits/predict", json={"instances": instances}).raise_for_status()
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def as_text(strings: NDArray[Any]) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else one for one in strings]


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "v2")
    assert not client.is_model_ready("digits", "v9")
    assert not client.is_model_ready("cats")
    assert client.get_server_metadata() == {
        "name": "rollout",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }
    for version in ("", "v1", "v2"):
        metadata = client.get_model_metadata("digits", version)
        assert metadata.pop("platform").startswith("onnx")
        assert metadata == {
            "name": "digits",
            "versions": ["v1", "v2"],
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "confidence", "datatype": "FP32", "shape": [-1]},
                {"name": "scores", "datatype": "FP32", "shape": [-1, 10]},
                {"name": "review", "datatype": "BYTES", "shape": [-1]},
            ],
        }
    departures = client.get_model_metadata("departures")
    assert departures["inputs"] == [
        {"name": "at", "datatype": "BYTES", "shape": [-1]},
        {"name": "origin", "datatype": "BYTES", "shape": [-1]},
    ]
    assert departures["outputs"][:2] == [
        {"name": "value", "datatype": "FP32", "shape": [-1]},
        {"name": "interval", "datatype": "FP32", "shape": [-1, 2]},
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("arm", ["champion", "control", "challenger"])
def test_64_rows_are_answered_as_predict_answers_them(
    endpoints: Endpoints, client: triton.InferenceServerClient, arm: str, binary_out: bool | None, binary_in: bool
) -> None:
    client_id = CLIENTS[arm]
    wanted = [] if binary_out is None else [triton.InferRequestedOutput(name, binary_out) for name in OUTPUTS]
    result = client.infer(
        "digits",
        images(binary=binary_in),
        outputs=wanted,
        request_id="r-1",
        parameters={"client_id": client_id},
    )
    response = result.get_response()
    expected = predictions(endpoints.service, client_id)
    assert (response["model_name"], response["id"]) == ("digits", "r-1")
    assert response["model_version"] == expected[0]["version"] == ("v2" if arm == "challenger" else "v1")
    assert response["parameters"] == {"arm": arm, "variant": expected[0]["variant"], "revision": 1}
    assert [output["name"] for output in response["outputs"]] == OUTPUTS
    assert as_text(result.as_numpy("label")) == [one["label"] for one in expected]
    assert as_text(result.as_numpy("review")) == [one["review"] or "" for one in expected]
    assert result.as_numpy("confidence").dtype == np.float32
    assert result.as_numpy("confidence") == pytest.approx([one["confidence"] for one in expected], abs=1e-5)
    assert result.as_numpy("scores") == pytest.approx(
        np.array([list(one["scores"].values()) for one in expected]), abs=1e-5
    )


def test_an_admin_sees_the_other_arm(client: triton.InferenceServerClient, endpoints: Endpoints) -> None:
    look = {"X-Client-Id": CLIENTS["control"], "X-Rollout-Arm": "challenger"}
    with pytest.raises(InferenceServerException, match="Authorization"):
        client.infer("digits", images(), headers=look)
    admin = look | {"Authorization": f"Bearer {endpoints.service.token}"}
    response = client.infer("digits", images(), headers=admin).get_response()
    assert (response["model_version"], response["parameters"]["arm"]) == ("v2", "challenger")


def test_the_client_id_comes_in_the_parameters_or_in_a_header(client: triton.InferenceServerClient) -> None:
    def answered(headers: dict[str, str] | None = None, **parameters: str) -> tuple[str, str]:
        response = client.infer("digits", images(), headers=headers, parameters=parameters).get_response()
        return response["parameters"]["arm"], response["model_version"]

    challenger, control = CLIENTS["challenger"], CLIENTS["control"]
    for _ in range(3):
        assert answered({"X-Client-Id": challenger}) == ("challenger", "v2")
        assert answered({"x-client-id": control}) == ("control", "v1")
        assert answered({"X-Client-Id": control}, client_id=challenger) == ("challenger", "v2")
        assert answered() == ("champion", "v1"), "nobody is outside the trial"


def test_only_what_is_asked_for_in_that_order(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("scores"), triton.InferRequestedOutput("label", binary_data=False)]
    result = client.infer("digits", images(), outputs=wanted)
    scores, label = result.get_response()["outputs"]
    assert (scores["name"], scores["shape"], scores["parameters"]) == (
        "scores",
        [64, 10],
        {"binary_data_size": 2560},
    )
    assert label["data"] == [str(digit) for digit in result.as_numpy("scores").argmax(-1)]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request(client: triton.InferenceServerClient, algorithm: str) -> None:
    plain = client.infer("digits", images())
    packed = client.infer("digits", images(), request_compression_algorithm=algorithm)
    assert (packed.as_numpy("label") == plain.as_numpy("label")).all()


def test_an_uncertain_row_goes_to_review_with_what_was_sent(
    endpoints: Endpoints, client: triton.InferenceServerClient
) -> None:
    unsure = np.array([three_or_eight()], np.uint8)
    with endpoints.service.admin() as admin:

        def items(client_id: str) -> list[dict[str, Any]]:
            wanted = {"client_id": client_id, "reason": "low_confidence"}
            found = admin.get("/v1/models/digits/reviews", params=wanted).json()["reviews"]
            assert isinstance(found, list)
            return found

        for _ in range(2):
            answer = client.infer("digits", images(unsure), parameters={"client_id": "oip-7", "key": "page-3"})
            assert as_text(answer.as_numpy("review")) == ["queued"]
        (item,) = items("oip-7")
        assert (item["key"], item["arm"]) == ("page-3", assign(ON_TRIAL, "oip-7").arm)
        assert item["inputs"] == {"image": unsure[0].tolist()}
        mixed = np.concatenate([IMAGES[:1], unsure, IMAGES[1:2]])
        answer = client.infer("digits", images(mixed), headers={"X-Client-Id": "oip-8"})
        assert as_text(answer.as_numpy("review")) == ["", "queued", ""]
        (item,) = items("oip-8")
        assert item["inputs"] == {"image": unsure[0].tolist()}
        assert as_text(client.infer("digits", images(unsure)).as_numpy("review")) == ["queued"]
        (item,) = items("")
        assert (item["key"], item["arm"], item["version"]) == (None, "champion", "v1")


def test_a_version_must_be_the_one_that_the_client_gets(client: triton.InferenceServerClient) -> None:
    parameters = {"client_id": CLIENTS["challenger"]}
    assert client.infer("digits", images(), "v2", parameters=parameters).get_response()["model_version"] == "v2"
    with pytest.raises(InferenceServerException, match="this client gets v2, as challenger, not v1") as refused:
        client.infer("digits", images(), "v1", parameters=parameters)
    assert refused.value.status() == "422"
    with pytest.raises(InferenceServerException, match="no version 'v9' in memory; it has v1, v2") as refused:
        client.infer("digits", images(), "v9")
    assert refused.value.status() == "404"


@pytest.mark.parametrize("binary", [True, False])
def test_texts_times_and_categories(
    endpoints: Endpoints, client: triton.InferenceServerClient, binary: bool
) -> None:
    text = ["Thursday's delivery was late", "Die Lieferung kam am Donnerstag zu spät"]
    assert as_text(client.infer("languages", [texts("text", *text, binary=binary)]).as_numpy("label")) == [
        "en",
        "de",
    ]
    at, origin = ["2026-11-05T10:00:00Z", "2026-12-24T23:00:00+01:00"], ["JFK", "EWR"]
    result = client.infer(
        "departures",
        [texts("origin", *origin, binary=binary), texts("at", *at, binary=binary)],
        headers={"X-Client-Id": "c-1"},
    )
    instances = [
        {"client_id": "c-1", "inputs": {"at": one, "origin": place}}
        for one, place in zip(at, origin, strict=True)
    ]
    with endpoints.service.client() as http:
        answer = http.post("/v1/models/departures/predict", json={"instances": instances}).json()["predictions"]
    assert result.as_numpy("value") == pytest.approx([one["value"] for one in answer])
    assert result.as_numpy("interval") == pytest.approx(np.array([one["interval"] for one in answer]))


def test_what_goes_wrong_reaches_the_client_as_a_sentence(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="there is no model 'cats'") as refused:
        client.infer("cats", images())
    assert refused.value.status() == "404"
    with pytest.raises(InferenceServerException, match="there is nothing at /v2/repository/index"):
        client.get_model_repository_index()
    with pytest.raises(InferenceServerException, match="rows would take about") as refused:
        client.infer("digits", images(np.repeat(IMAGES, 16, 0)), headers={"X-Request-Timeout": "1"})
    assert refused.value.status() == "503"
    classes = [triton.InferRequestedOutput("scores", class_count=3)]
    with pytest.raises(InferenceServerException, match="/outputs/0/parameters/classification is not a parameter"):
        client.infer("digits", images(), outputs=classes)
    shared = triton.InferInput("image", [1, 32, 32], "UINT8")
    shared.set_shared_memory("region", 1024)
    with pytest.raises(InferenceServerException, match="shared_memory_region is not a parameter"):
        client.infer("digits", [shared])


IMAGE = {"name": "image", "shape": [1, 32, 32], "datatype": "UINT8"}
BINARY = IMAGE | {"parameters": {"binary_data_size": 1024}}
BLACK = IMAGE | {"data": [0] * 1024}


def ask(*inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": list(inputs)} | more


@pytest.mark.parametrize(
    ("head", "tail", "length", "status", "words"),
    [
        (ask(BINARY), b"\0" * 1023, None, 422, "its JSON and the announced binary data make"),
        (ask(BINARY), b"\0" * 1025, None, 422, "its JSON and the announced binary data make"),
        (ask(BINARY), b"", None, 422, "its JSON and the announced binary data make"),
        (ask(BINARY), b"\0" * 1024, "7", 400, "send one JSON object"),
        (ask(BINARY), b"\0" * 1024, "0", 400, "send one JSON object"),
        (ask(BINARY), b"\0" * 1024, "-1", 422, "must be a whole number"),
        (ask(BINARY), b"\0" * 1024, "soon", 422, "must be a whole number"),
        (ask(BINARY), b"\0" * 1024, "9" * 30, 422, "must be a whole number"),
        (ask(BINARY), b"\0" * 1024, "5000", 422, "must be a whole number"),
        (ask(IMAGE | {"parameters": {"binary_data_size": -1}}), b"", None, 422, "/inputs/0/parameters/binary_data_size"),
        (ask(IMAGE | {"parameters": {"binary_data_size": 1e30}}), b"", None, 422, "binary_data_size"),
        (ask(IMAGE | {"parameters": {"binary_data_size": 1023}}), b"\0" * 1023, None, 422, "holds 1023 bytes; its shape and datatype take 1024"),
        (ask(BINARY | {"data": [0] * 1024}), b"\0" * 1024, None, 422, "must have either data or"),
        (ask(IMAGE), b"", None, 422, "/inputs/0 must have either data or"),
        (ask(BINARY | {"shape": [1, 1024]}), b"\0" * 1024, None, 422, "/inputs/0/shape must be [rows, 32, 32], not [1, 1024]"),
        (ask(BINARY | {"shape": [-1, 32, 32]}), b"\0" * 1024, None, 422, "must begin with 1 to 1024 rows, not -1"),
        (ask(BINARY | {"shape": [0, 32, 32]}), b"\0" * 1024, None, 422, "must begin with 1 to 1024 rows, not 0"),
        (ask(BINARY | {"shape": [1025, 32, 32]}), b"\0" * 1024, None, 422, "not 1025"),
        (ask(BINARY | {"shape": [2**70, 32, 32]}), b"\0" * 1024, None, 422, "shape"),
        (ask(BINARY | {"shape": [1.5, 32, 32]}), b"\0" * 1024, None, 422, "/inputs/0/shape/0"),
        (ask(BINARY | {"shape": None}), b"\0" * 1024, None, 422, "/inputs/0/shape"),
        (ask(BINARY | {"datatype": "FP32"}), b"\0" * 1024, None, 422, "/inputs/0/datatype must be UINT8, not FP32"),
        (ask(BINARY | {"datatype": "BYTES"}), b"\0" * 1024, None, 422, "must be UINT8, not BYTES"),
        (ask(BINARY | {"name": "pixels"}), b"\0" * 1024, None, 422, "pixels is not an input of this model; it takes image"),
        (ask(BINARY, BINARY), b"\0" * 2048, None, 422, "/inputs/1/name image is there twice"),
        (ask(*[IMAGE | {"data": []}] * 100_000), b"", None, 422, "/inputs holds 100,000 tensors; digits has 1 inputs"),
        (ask(BLACK, outputs=[{"name": "label"}] * 100_000), b"", None, 422, "/outputs holds 100,000 tensors; digits has 4 outputs"),
        (ask(), b"", None, 422, "/inputs lacks image, UINT8 of shape [-1, 32, 32]"),
        (ask(IMAGE | {"data": [[[256] * 32] * 32]}), b"", None, 422, "/inputs/0/data/0/0/0"),
        (ask(IMAGE | {"data": [256] * 1024}), b"", None, 422, "/inputs/0/data/0"),
        (ask(IMAGE | {"data": [0] * 1023}), b"", None, 422, "/inputs/0/data"),
        (ask(IMAGE | {"data": "AAAA"}), b"", None, 422, "/inputs/0/data"),
        (ask(BLACK, outputs=[{"name": "digit"}]), b"", None, 422, "digit is not an output; there are label, confidence, scores, review"),
        (ask(BLACK, outputs=[{"name": "label"}, {"name": "scores"}, {"name": "label"}]), b"", None, 422, "/outputs/2/name label is there twice"),
        (ask(BLACK, outputs=[{"name": "label", "parameters": {"binary_data": "yes"}}]), b"", None, 422, "binary_data"),
        (ask(BLACK, parameters={"client_id": ""}), b"", None, 422, "/parameters/client_id must be 1 to 128 printable"),
        (ask(BLACK, parameters={"client_id": "x" * 129}), b"", None, 422, "1 to 128 printable"),
        (ask(BLACK, parameters={"client_id": "\x07"}), b"", None, 422, "1 to 128 printable"),
        (ask(BLACK, parameters={"client_id": 7}), b"", None, 422, "/parameters/client_id"),
        (ask(BLACK, parameters={"key": "tab\t"}), b"", None, 422, "/parameters/key must be 1 to 128 printable"),
        (ask(BLACK, parameters={"client": "c"}), b"", None, 422, "/parameters/client is not a parameter that"),
        (ask(IMAGE | {"shape": [2, 32, 32], "data": [0] * 2048}, parameters={"key": "k"}), b"", None, 422, "/parameters/key names one prediction, and there are 2 rows"),
        (ask(BLACK, id=7), b"", None, 422, "/id"),
        (ask(BLACK, extra=1), b"", None, 422, "unknown field extra"),
        ([ask(BLACK)], b"", None, 422, "expected object"),
        ({}, b"", None, 422, "/inputs is required"),
    ],
)  # fmt: skip
def test_requests_that_do_not_fit(
    endpoints: Endpoints, head: Any, tail: bytes, length: str | None, status: int, words: str
) -> None:
    json_part = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(json_part))} if tail or length else {}
    with endpoints.service.client() as http:
        response = http.post(INFER, content=json_part + tail, headers=headers)
    assert response.status_code == status, response.text
    document = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert document["error"] == document["detail"]
    assert words in document["error"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"", {}, 400, "send one JSON object"),
        (b'{"inputs": [', {}, 400, "send one JSON object"),
        (b"\xff", {}, 400, "send one JSON object"),
        (b'{"id": "\xff", "inputs": []}', {}, 400, "send one JSON object"),
        (b"{}", {"X-Request-Timeout": "0"}, 422, "milliseconds"),
        (json.dumps(ask(BLACK)).encode(), {"X-Client-Id": "\xff"}, 422, "/client_id must be 1 to 128 printable"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "'Content-Type: application/json'"),
        (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "or 'Content-Type: application/octet-"),
        (b"{}", {"Content-Type": "multipart/form-data; boundary=x"}, 415, "send the body with the header"),
        (b"{}", {"Content-Encoding": "br"}, 415, "may be one of gzip, deflate, zstd"),
        (b"{}", {"Content-Encoding": "gzip"}, 400, "not gzip, which its Content-Encoding says"),
        (gzip.compress(b"{}" * 999, mtime=0)[:-9], {"Content-Encoding": "gzip"}, 400, "ends too early"),
        (gzip.compress(b" " * 9_000_000, mtime=0), {"Content-Encoding": "gzip"}, 413, "at most 8,388,608"),
        (b" " * 9_000_000, {}, 413, "at most 8,388,608"),
    ],
)  # fmt: skip
def test_bodies_that_cannot_be_read(
    endpoints: Endpoints, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    with endpoints.service.client() as http:
        response = http.post(INFER, content=body, headers=raw)
    assert response.status_code == status, response.text
    assert words in response.json()["error"]


def test_other_addresses_and_methods(endpoints: Endpoints) -> None:
    with endpoints.service.client() as http:
        wrong = http.get(INFER)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert "takes POST" in wrong.json()["error"]
        for path in ("/v2/nothing", "/v2/models", "/v2/models/digits/versions/v1/nothing"):
            assert "there is nothing at" in http.get(path).json()["error"]
        assert http.get("/v2/models/cats/ready").status_code == 404
        assert http.post("/v2/models/a/b/infer", json=ask(BLACK)).status_code == 404
    assert endpoints.service.metric("rollout_errors_total", 'type="internal-error"') == 0


def test_openapi_describes_it(endpoints: Endpoints) -> None:
    with endpoints.service.client() as http:
        document = http.get("/openapi.json").json()
    validate(document)
    served = {route.path for route in OpenInference(Gateway()).routes}
    assert served == {path for path in document["paths"] if path.startswith("/v2")}


def test_tokens(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, *TRIAL)
    tokens = "app:app-token-0123456789,reviewer:reviewer-token-01234"
    with run_service(tmp_path, ROLLOUT_TOKENS=tokens, ROLLOUT_WORKERS="1") as running:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert httpx.get(running.base + path).status_code == 200
        with triton.InferenceServerClient(running.base.removeprefix("http://")) as client:
            for token, status in (("", "401"), ("nobody", "401"), ("reviewer-token-01234", "403")):
                headers = {"Authorization": f"Bearer {token}"} if token else None
                for call in (
                    partial(client.infer, "digits", images()),
                    partial(client.get_model_metadata, "digits"),
                    client.get_server_metadata,
                ):
                    with pytest.raises(InferenceServerException) as refused:
                        call(headers=headers)
                    assert refused.value.status() == status
            app = {"Authorization": "Bearer app-token-0123456789"}
            assert client.infer("digits", images(), headers=app).as_numpy("label").shape == (64,)
