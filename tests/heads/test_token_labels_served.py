"""A model that finds spans is packed, served over each protocol, reviewed, exported, fed back and learnt from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from rollout import Text, pack
from rollout.bundle.manifest import Manifest
from rollout.config import Settings
from rollout.embedded import running_redis
from rollout.errors import BundleError
from rollout.heads import read_head
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import connect
from tests.conftest import Service, free_port, run_service
from tests.heads.tagging import HEAD, TEXT, Tagger, part

NAME = "tiny-spans"
TEXTS = ["é😀日本 ZOÉ naïve １３ Q", "", "und ich", "ANA 12"]
PLACES = [[(5, 8, "name"), (15, 17, "number"), (18, 19, "name")], [], [], [(0, 3, "name"), (4, 6, "number")]]


class Running(NamedTuple):
    """A service, where it answers to gRPC, and what it serves."""

    service: Service
    grpc: str
    manifest: Manifest


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with the tagger; every answer goes to review."""
    manifest = pack(
        Tagger().eval(),
        name=NAME,
        version="v1",
        inputs={"text": TEXT},
        task=HEAD,
        calibration=part(300, 0),
        evaluation=part(300, 1),
    )
    home, port = tmp_path_factory.mktemp("spans"), free_port()
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


def predict(running: Running, client: str, texts: list[str]) -> list[dict[str, Any]]:
    instances = [
        {"client_id": client, "key": f"{client}-{row}", "inputs": {"text": text}}
        for row, text in enumerate(texts)
    ]
    with running.service.client() as http:
        response = http.post(f"/v1/models/{NAME}/predict", json={"instances": instances})
    assert response.status_code == 200, response.text
    return list(response.json()["predictions"])


def places(spans: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    return [(span["start"], span["end"], span["label"]) for span in spans]


def test_all_variants_are_kept(running: Running) -> None:
    assert set(running.manifest.variants) == {"onnx", "onnx-int8", "torchscript", "export"}
    assert not running.manifest.left_out
    metrics = running.manifest.metrics
    assert metrics["span_recall"] == metrics["span_precision_without_review"] == 1
    assert 0.1 < metrics["review_rate"] < 0.4


@pytest.mark.parametrize(
    ("wrong", "needs"), [("alone", "logits, text"), ("text", "return the tensor of the field")]
)
def test_a_module_that_does_not_return_its_text_is_refused(wrong: str, needs: str) -> None:
    rows = part(30, 0)
    with pytest.raises(BundleError, match=needs):
        pack(
            Tagger(wrong).eval(),
            name="wrong-spans",
            version="v1",
            inputs={"text": TEXT},
            task=HEAD,
            calibration=rows,
            evaluation=rows,
        )


def test_the_field_must_be_a_text_of_that_width() -> None:
    HEAD.check_inputs({"text": TEXT})
    for fields in ({}, {"other": TEXT}, {"text": Text(max_bytes=41)}):
        with pytest.raises(BundleError, match=r"need an input 'text' that is Text\(max_bytes=40\)"):
            HEAD.check_inputs(fields)


def test_answers_count_characters_of_the_text_as_it_was_sent(running: Running) -> None:
    predictions = predict(running, "json", TEXTS)
    assert [places(one["spans"]) for one in predictions] == PLACES
    confidence = [span["confidence"] for span in predictions[0]["spans"]]
    assert confidence[2] < running.manifest.task.review_limit < min(confidence[:2])
    with running.service.client() as http:
        described = http.get(f"/v1/models/{NAME}").json()
        head = read_head(described["task"])
        assert head.labels_used == ["name", "number"]
        document = http.get("/openapi.json").json()
    (found,) = (schema for name, schema in document["components"]["schemas"].items() if "FoundSpan" in name)
    assert set(found["properties"]) == {"start", "end", "label", "confidence"}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_so_do_tensors(running: Running, protocol: str) -> None:
    kind: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
    address = running.service.base.removeprefix("http://") if protocol == "http" else running.grpc
    data = kind.InferInput("text", [len(TEXTS)], "BYTES")
    data.set_data_from_numpy(np.array([text.encode() for text in TEXTS], np.object_))
    with kind.InferenceServerClient(address) as client:
        result = client.infer(NAME, [data], parameters={"client_id": "oip"})
    assert [places(json.loads(one)) for one in result.as_numpy("spans")] == PLACES


def test_an_answer_is_reviewed_exported_and_fed_back(running: Running) -> None:
    address = f"/v1/models/{NAME}"
    (answered, *_) = predict(running, "reviewed", TEXTS)
    truth = [{"start": 5, "end": 8, "label": "name"}, {"start": 15, "end": 17, "label": "number"}]
    with running.service.admin() as http:
        filters = {"client_id": "reviewed", "label": "name"}
        claim = {"reviewer": "ada", "filters": filters, "count": 10}
        claimed = http.post(f"{address}/reviews/claim", json=claim).json()["items"]
        assert sorted(each["item"]["key"] for each in claimed) == ["reviewed-0", "reviewed-3"]
        (leased,) = (each for each in claimed if each["item"]["key"] == "reviewed-0")
        assert leased["item"]["answer"] == {"spans": answered["spans"]}
        assert leased["item"]["reason"] == "low_confidence"
        resolve = f"{address}/reviews/{leased['item']['id']}/resolve"
        wrong = [{"start": 5, "end": 8, "label": "place"}]
        refused = http.post(resolve, json={"token": leased["token"], "spans": wrong})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/spans/0")
        done = http.post(resolve, json={"token": leased["token"], "spans": truth})
        assert done.status_code == 200, done.text
        export = http.get(f"{address}/reviews/export").text
        (row,) = (each for line in export.splitlines() if (each := json.loads(line))["key"] == "reviewed-0")
        assert (row["spans"], row["predicted"]) == (truth, {"spans": answered["spans"]})
        report = {"client_id": "reviewed", "key": "reviewed-3", "spans": truth[:0]}
        assert http.post(f"{address}/feedback", json=report).status_code == 200
