"""Every kind is packed, served over each protocol, reviewed, exported and fed back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc
import tritonclient.http

from rollout.bundle.source import ModuleSource
from rollout.heads import Truth
from rollout.job.sink import open_sink
from tests.heads.serving import TINY, Running

ROWS = 5
NAMES = list(TINY)
EXACT = {"onnx", "torchscript", "export"}


def rows_of(name: str) -> dict[str, Any]:
    return TINY[name].rows(np.random.default_rng(7), ROWS).inputs


def numbers_of(running: Running, name: str) -> np.ndarray[Any, Any]:
    """What the module itself says, decided on in NumPy."""
    head, rows = running.manifests[name].task, rows_of(name)
    return head.numbers(head.scores(ModuleSource(TINY[name].module().eval(), head, rows).outputs(rows)))


def same(got: Any, wanted: Any) -> bool:
    """Whether two answers are the same but for the last digits of numbers."""
    if isinstance(wanted, Mapping):
        return got.keys() == wanted.keys() and all(same(got[key], each) for key, each in wanted.items())
    if isinstance(wanted, list | tuple):
        return len(got) == len(wanted) and all(map(same, got, wanted))
    if isinstance(wanted, float):
        return math.isclose(got, wanted, rel_tol=1e-4, abs_tol=1e-4)
    return bool(got == wanted)


def predict(running: Running, name: str, client: str = "c-1") -> list[dict[str, Any]]:
    inputs = rows_of(name)
    instances = [
        {
            "client_id": client,
            "key": f"{client}-{row}",
            "inputs": {key: array[row].tolist() for key, array in inputs.items()},
        }
        for row in range(ROWS)
    ]
    with running.service.client() as http:
        response = http.post(f"/v1/models/{name}/predict", json={"instances": instances})
    assert response.status_code == 200, response.text
    return list(response.json()["predictions"])


@pytest.mark.parametrize("name", NAMES)
def test_variants_that_agree_are_kept(tiny_models: Running, name: str) -> None:
    manifest = tiny_models.manifests[name]
    assert manifest.variants.keys() >= EXACT, manifest.left_out
    assert manifest.task.reviews_everything is False


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_what_the_module_says(tiny_models: Running, name: str) -> None:
    head = tiny_models.manifests[name].task
    numbers = numbers_of(tiny_models, name).tolist()
    for got, row in zip(predict(tiny_models, name), numbers, strict=True):
        wanted = msgspec.to_builtins(head.answer(row)._asdict())
        assert same({key: got[key] for key in wanted}, wanted), (got, wanted)
        assert got["review"] == "queued"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", ["http", "http as json", "grpc"])
def test_so_are_tensors(tiny_models: Running, name: str, protocol: str) -> None:
    kind: Any = tritonclient.grpc if protocol == "grpc" else tritonclient.http
    options = {"binary_data": False} if protocol == "http as json" else {}
    head = tiny_models.manifests[name].task
    inputs = [
        kind.InferInput(key, list(array.shape), "FP32").set_data_from_numpy(array)
        for key, array in rows_of(name).items()
    ]
    with kind.InferenceServerClient(tiny_models.grpc if protocol == "grpc" else tiny_models.http) as client:
        metadata = client.get_model_metadata(name, **({"as_json": True} if protocol == "grpc" else {}))
        outputs = [kind.InferRequestedOutput(each, **options) for each in head.declared()] if options else None
        result = client.infer(name, inputs, outputs=outputs, parameters={"client_id": "oip"})
    shapes = {each["name"]: [int(size) for size in each["shape"]] for each in metadata["outputs"]}
    numbers = numbers_of(tiny_models, name)
    for tensor, (datatype, shape) in head.declared().items():
        assert shapes[tensor] == [-1, *shape]
        got, wanted = result.as_numpy(tensor), head.tensor(tensor, numbers)
        if datatype == "BYTES":
            texts = [each if isinstance(each, str) else each.decode() for each in got.ravel()]
            assert (texts, got.shape) == (wanted, (ROWS, *shape))
        else:
            assert got.dtype == (bool if datatype == "BOOL" else np.float32)
            np.testing.assert_allclose(got.astype(float), np.asarray(wanted, float), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_reviewed_exported_and_fed_back(tiny_models: Running, name: str) -> None:
    tiny, address = TINY[name], f"/v1/models/{name}"
    head = tiny_models.manifests[name].task
    (answered, *_) = predict(tiny_models, name, "reviewed")
    with tiny_models.service.admin() as http:
        claimed = http.post(
            f"{address}/reviews/claim",
            json={"reviewer": "ada", "filters": {"client_id": "reviewed"}, "count": ROWS},
        ).json()["items"]
        leased = next(each for each in claimed if each["item"]["key"] == "reviewed-0")
        item = leased["item"]["id"]
        answer = leased["item"]["answer"]
        assert answer == {key: answered[key] for key in answer}
        refused = http.post(
            f"{address}/reviews/{item}/resolve", json={"token": leased["token"], "tensors": {"x": [1]}}
        )
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/tensors")
        done = http.post(f"{address}/reviews/{item}/resolve", json={"token": leased["token"], **tiny.truth})
        assert done.status_code == 200, done.text
        rows = [msgspec.json.decode(row) for row in http.get(f"{address}/reviews/export").text.splitlines()]
        row = next(each for each in rows if each["id"] == item)
        assert {form: row[form] for form in tiny.truth} == tiny.truth
        assert row["predicted"] == answer
        report = {"client_id": "reviewed", "key": "reviewed-0", **tiny.truth}
        taken = http.post(f"{address}/feedback", json=report)
        assert taken.status_code == 200, taken.text
        assert {form: taken.json()[form] for form in tiny.truth} == tiny.truth
    truth = msgspec.convert(tiny.truth, Truth)
    assert not list(head.faults(truth))


@pytest.mark.parametrize("name", NAMES)
def test_answers_go_into_columns(tiny_models: Running, name: str, tmp_path: Path) -> None:
    head, file = tiny_models.manifests[name].task, tmp_path / "answers.parquet"
    records = [record | {"error": None} for record in predict(tiny_models, name)]
    with open_sink(file, head) as write:
        write([record | head.table_row(record) for record in records])
    for got, record in zip(pq.read_table(file).to_pylist(), records, strict=True):
        for column, wanted in head.table_row(record).items():
            is_json = isinstance(got[column], str) and not isinstance(wanted, str)
            assert same(json.loads(got[column]) if is_json else got[column], wanted)
