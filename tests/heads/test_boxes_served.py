"""Boxes are packed, served over each protocol, reviewed, exported and fed back."""

from __future__ import annotations

import asyncio
import base64
import io
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import PIL.Image
import pytest
import tritonclient.grpc
import tritonclient.http

from rollout import pack
from rollout.bundle.manifest import Manifest
from rollout.config import Settings
from rollout.embedded import running_redis
from rollout.heads import Truth
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import connect
from tests.conftest import Service, free_port, run_service
from tests.heads.detector import HEAD, INPUTS, Detector, outputs_of, pictures

NAME = "shapes-of-a-test"
ROWS = 6
IMAGES = pictures(np.random.default_rng(7), ROWS).inputs["image"]
SAID: dict[str, list[dict[str, Any]]] = {
    "boxes": [{"label": "lamp", "box": [0.1, 0.2, 0.4, 0.5]}, {"label": "wall", "box": [0, 0, 0.5, 1]}]
}


class Running(NamedTuple):
    service: Service
    grpc: str
    manifest: Manifest


@pytest.fixture(scope="module")
def running(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("boxes")
    calibration, evaluation = (pictures(np.random.default_rng(seed), 200) for seed in (0, 1))
    manifest = pack(
        Detector().eval(),
        name=NAME,
        version="v1",
        inputs=INPUTS,
        task=HEAD,
        calibration=calibration,
        evaluation=evaluation,
    )
    port = free_port()
    with running_redis(Settings(home=home / "valkey")) as url:

        async def prepare() -> None:
            redis = await connect(url)
            await write_split(redis, NAME, Split(revision=0, champion="v1"))
            await write_policy(redis, NAME, ReviewPolicy(audit=1))
            await redis.aclose()

        asyncio.run(prepare())
        options = {"ROLLOUT_REDIS_URL": url, "ROLLOUT_WORKERS": "1", "ROLLOUT_GRPC_PORT": str(port)}
        with run_service(home / "service", None, **options) as service:
            yield Running(service, f"127.0.0.1:{port}", manifest)


def wanted(running: Running) -> list[list[dict[str, Any]]]:
    """What the network itself says, decided on in NumPy."""
    head = running.manifest.task
    return [head.answer(row).boxes for row in head.numbers(head.scores(outputs_of(IMAGES))).tolist()]


def same(got: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    return [each["label"] for each in got] == [each["label"] for each in expected] and all(
        math.isclose(one, other, abs_tol=1e-5)
        for ours, theirs in zip(got, expected, strict=True)
        for one, other in zip((ours["score"], *ours["box"]), (theirs["score"], *theirs["box"]), strict=True)
    )


def predict(running: Running, images: list[Any], client: str) -> list[dict[str, Any]]:
    instances = [
        {"client_id": client, "key": f"{client}-{row}", "inputs": {"image": image}}
        for row, image in enumerate(images)
    ]
    with running.service.client() as http:
        response = http.post(f"/v1/models/{NAME}/predict", json={"instances": instances})
    assert response.status_code == 200, response.text
    return list(response.json()["predictions"])


def test_every_variant_with_something_in_it_is_kept(running: Running) -> None:
    manifest = running.manifest
    assert manifest.variants.keys() == {"onnx", "torchscript", "export"}, manifest.left_out
    assert set(manifest.left_out) == {"onnx-int8"}  # there are no weights to quantize
    assert manifest.metrics["average_precision"] > 0.8


def test_an_answer_has_the_boxes_of_the_network(running: Running) -> None:
    expected = wanted(running)
    assert sum(map(len, expected)) > ROWS / 2
    files = []
    for image in IMAGES:
        file = io.BytesIO()
        PIL.Image.fromarray(image).save(file, "PNG")
        files.append(base64.b64encode(file.getvalue()).decode())
    for images in (IMAGES.tolist(), files):
        for got, boxes in zip(predict(running, images, "c-1"), expected, strict=True):
            assert same(got["boxes"], boxes), (got, boxes)
            assert got["review"] == "queued"
    with running.service.client() as http:
        schema = http.get("/openapi.json").json()["components"]["schemas"]
    assert set(schema["FoundBox"]["required"]) == {"label", "score", "box"}


@pytest.mark.parametrize("protocol", ["http", "http as json", "grpc"])
def test_so_have_tensors(running: Running, protocol: str) -> None:
    kind: Any = tritonclient.grpc if protocol == "grpc" else tritonclient.http
    head = running.manifest.task
    tensor = kind.InferInput("image", list(IMAGES.shape), "UINT8")
    tensor.set_data_from_numpy(IMAGES)
    address = running.grpc if protocol == "grpc" else running.service.base.removeprefix("http://")
    outputs = None
    if protocol == "http as json":
        outputs = [kind.InferRequestedOutput(name, binary_data=False) for name in head.declared()]
    with kind.InferenceServerClient(address) as client:
        result = client.infer(NAME, [tensor], outputs=outputs, parameters={"client_id": "oip"})
        got = {name: result.as_numpy(name) for name in head.declared()}
    assert {name: array.shape for name, array in got.items()} == {
        name: (ROWS, *shape) for name, (_, shape) in head.declared().items()
    }
    assert got["count"].dtype == np.int32
    for row, boxes in enumerate(wanted(running)):
        count = int(got["count"][row])
        labels = [each if isinstance(each, str) else each.decode() for each in got["label"][row].tolist()]
        found = [
            {"label": labels[at], "score": float(got["score"][row, at]), "box": got["box"][row, at].tolist()}
            for at in range(count)
        ]
        assert same(found, boxes)
        assert labels[count:] == [""] * (head.columns // 6 - count)


def test_they_are_reviewed_exported_and_fed_back(running: Running) -> None:
    address = f"/v1/models/{NAME}"
    (answered, *_) = predict(running, IMAGES.tolist()[:1], "reviewed")
    with running.service.admin() as http:
        body = {"reviewer": "ada", "filters": {"client_id": "reviewed"}, "count": 1}
        (leased,) = http.post(f"{address}/reviews/claim", json=body).json()["items"]
        item, token = leased["item"]["id"], leased["token"]
        assert leased["item"]["answer"] == {"boxes": answered["boxes"]}
        wrong = {"boxes": [{"label": "lamp", "box": [0.5, 0, 0.4, 1]}]}
        refused = http.post(f"{address}/reviews/{item}/resolve", json={"token": token, **wrong})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/boxes/0/box"), (
            refused.text
        )
        done = http.post(f"{address}/reviews/{item}/resolve", json={"token": token, **SAID})
        assert done.status_code == 200, done.text
        rows = [msgspec.json.decode(row) for row in http.get(f"{address}/reviews/export").text.splitlines()]
        (row,) = (each for each in rows if each["id"] == item)
        assert row["boxes"] == sorted(SAID["boxes"], key=lambda box: str(box["label"]))
        report = {"client_id": "reviewed", "key": "reviewed-0", **SAID}
        taken = http.post(f"{address}/feedback", json=report)
        assert taken.status_code == 200, taken.text
    head = running.manifest.task
    targets = head.targets([msgspec.convert(SAID, Truth)])
    head.check_targets(targets)
    assert targets.shape[1:] == pictures(np.random.default_rng(0), 1).targets.shape[1:]
