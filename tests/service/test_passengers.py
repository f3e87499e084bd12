"""What is missing, null or never seen comes to the model as in training, whichever way a row comes in."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tritonclient.http as triton
from openapi_spec_validator import validate
from tritonclient.utils import InferenceServerException

from rollout.bundle.manifest import Manifest
from tests.cli.test_cli import run
from tests.conftest import Service, run_service, set_split
from tests.passengers import PORTS, RAW, encode, inputs_of, pack_passengers, scores_by_itself

PREDICT = "/v1/models/passengers/predict"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return pack_passengers()


@pytest.fixture(scope="module")
def ship(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the model in single precision, which keeps every row for reviewers."""
    home = tmp_path_factory.mktemp("ship")
    set_split(home, "--champion", manifest.version, model=manifest.name)
    with run_service(home, ROLLOUT_WORKERS="1", ROLLOUT_VARIANT="onnx") as running:
        run(home, "review", "policy", manifest.name, "--set", "audit=1", "--yes")
        yield running


@pytest.fixture(scope="module")
def expected(manifest: Manifest) -> list[dict[str, float]]:
    scores = scores_by_itself(manifest, RAW)
    assert len({round(one["lost"], 4) for one in scores}) == len(RAW)  # each row is told from the others
    return scores


def same(answers: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> None:
    assert len(answers) == len(expected)
    for answer, one in zip(answers, expected, strict=True):
        assert answer == pytest.approx(one, abs=2e-6)


def without_nulls(inputs: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in inputs["row"].items() if value is not None}
    return {name: value for name, value in inputs.items() if value is not None} | {"row": row}


def ask(service: Service, *inputs: dict[str, Any]) -> dict[str, Any]:
    body = {"instances": [{"client_id": f"c-{number}", "inputs": one} for number, one in enumerate(inputs)]}
    with service.client() as client:
        answer: dict[str, Any] = client.post(PREDICT, json=body).json()
    return answer


def test_every_variant_that_serves_agrees_on_rows_with_gaps(manifest: Manifest) -> None:
    assert {"onnx", "torchscript"} <= manifest.variants.keys(), manifest.left_out
    assert manifest.variants["onnx"].parity["extreme"].rows == 4


@pytest.mark.parametrize("nulls", [True, False])
def test_null_and_nothing_and_what_nobody_saw_in_json(
    ship: Service, expected: list[dict[str, float]], nulls: bool
) -> None:
    rows = [inputs_of(raw) if nulls else without_nulls(inputs_of(raw)) for raw in RAW]
    same([one["scores"] for one in ask(ship, *rows)["predictions"]], expected)
    same([ask(ship, one)["predictions"][0]["scores"] for one in rows], expected)


def test_faults_within_a_row_are_pointed_at(ship: Service) -> None:
    good = inputs_of(RAW[0])
    row = {**good["row"], "agee": 3, "class": None}
    del row["sex"]
    errors = ask(ship, good, {**good, "row": row, "past": [None, 10], "deck": "Z"})["errors"]
    place = "#/instances/1/inputs"
    assert {error["pointer"] for error in errors} == {
        f"{place}/{one}" for one in ("row/agee", "row/class", "row/sex", "past/1", "deck")
    }
    lacking = {name: value for name, value in good.items() if name not in ("row", "past")}
    assert [error["pointer"] for error in ask(ship, lacking)["errors"]] == [
        "#/instances/0/inputs/row", "#/instances/0/inputs/past",
    ]  # fmt: skip
    with ship.client() as client:
        body = json.dumps({"client_id": "c", "inputs": {**good, "fare": float("nan")}})
        refused = client.post(PREDICT, content=body, headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["title"]) == (400, "The body is not what its headers say")


def tensors(rows: Sequence[dict[str, Any]], *, binary: bool) -> list[triton.InferInput]:
    """The rows as a client of the Open Inference Protocol has them: NaN, and an empty string."""
    numbers = {name: encode(rows)[name] for name in ("row", "past")}
    numbers["fare"] = np.array([np.nan if row["fare"] is None else row["fare"] for row in rows], np.float32)
    texts = {name: np.array([row[name] or "" for row in rows], object) for name in ("deck", "boarded")}
    kinds = {"FP32": numbers, "BYTES": texts}
    return [
        triton.InferInput(name, list(array.shape), kind).set_data_from_numpy(array, binary_data=binary)
        for kind, arrays in kinds.items()
        for name, array in arrays.items()
        if kind == "FP32" or array.any()
    ]


def test_nan_and_absent_tensors_in_the_open_inference_protocol(
    ship: Service, expected: list[dict[str, float]]
) -> None:
    with triton.InferenceServerClient(ship.base.removeprefix("http://")) as client:
        for rows, wanted in ((RAW, expected), (RAW[1:2], expected[1:2])):
            sent = tensors(rows, binary=True)
            assert len(sent) == (5 if len(rows) > 1 else 3)  # of the one row, deck and time are left out
            scores = client.infer("passengers", sent).as_numpy("scores")
            same([{"lost": float(lost), "saved": float(saved)} for lost, saved in scores], wanted)
        wrong = encode(RAW)["row"].copy()
        wrong[2, 1] = np.nan
        bad = triton.InferInput("row", list(wrong.shape), "FP32").set_data_from_numpy(wrong)
        with pytest.raises(
            InferenceServerException, match=r"holds nan at \[2, 1\], in class; it must be a number"
        ):
            client.infer("passengers", [bad, *tensors(RAW, binary=True)[1:]])
        with pytest.raises(InferenceServerException, match="lacks row, FP32 of shape"):
            client.infer("passengers", tensors(RAW, binary=True)[1:])
        metadata = client.get_model_metadata("passengers")["inputs"]
    assert {one["name"]: (one["datatype"], one["shape"]) for one in metadata}["row"] == ("FP32", [-1, 4])


def test_nulls_in_json_of_the_open_inference_protocol(ship: Service, expected: list[dict[str, float]]) -> None:
    arrays = encode(RAW)
    data: dict[str, tuple[str, Any]] = {
        "row": ("FP32", np.where(np.isnan(arrays["row"]), None, arrays["row"]).tolist()),  # type: ignore[call-overload]
        "fare": ("FP32", [row["fare"] for row in RAW]),
        "deck": ("BYTES", [row["deck"] for row in RAW]),
        "boarded": ("BYTES", [row["boarded"] for row in RAW]),
        "past": ("FP32", [row["past"] for row in RAW]),
    }
    inputs = [
        {
            "name": name,
            "datatype": kind,
            "shape": [4, *arrays[name].shape[1:]] if kind == "FP32" else [4],
            "data": values,
        }
        for name, (kind, values) in data.items()
    ]
    with ship.client() as client:
        answer = client.post("/v2/models/passengers/infer", json={"inputs": inputs}).json()
    (scores,) = [one["data"] for one in answer["outputs"] if one["name"] == "scores"]
    same([dict(zip(("lost", "saved"), scores[at : at + 2], strict=True)) for at in (0, 2, 4, 6)], expected)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_a_file_whose_columns_are_those_of_the_table(
    ship: Service, expected: list[dict[str, float]], tmp_path: Path, kind: str
) -> None:
    file, out = tmp_path / f"in.{kind}", tmp_path / "out.jsonl"
    records = [{"client_id": f"f-{number}", "note": "x", "row": number, **raw} for number, raw in enumerate(RAW)]
    if kind == "csv":
        with file.open("w", newline="") as text:
            writer = csv.DictWriter(text, records[0].keys())
            writer.writeheader()
            writer.writerows({**record, "past": json.dumps(record["past"])} for record in records)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), file)
    else:
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    run(ship.home, "predict", str(file), "--out", str(out), "--url", ship.base)
    same([json.loads(line)["scores"] for line in out.read_text().splitlines()], expected)


def test_a_file_that_lacks_a_column_is_refused_where_its_values_may_be_missing_too(
    ship: Service, tmp_path: Path
) -> None:
    file = tmp_path / "in.csv"
    file.write_text("client_id,agee,class,sex,port,fare,deck,boarded,past\n")
    printed = run(ship.home, "predict", str(file), "--out", str(tmp_path / "out.csv"), "--url", ship.base, code=1)
    assert "in.csv has no column age, which is a column of its input row; it has client_id, agee, " in printed
    assert "where a value is missing, its cell is empty" in printed


def test_what_is_missing_is_kept_for_reviewers_as_missing_whichever_way_it_came(ship: Service) -> None:
    ask(ship, {**inputs_of(RAW[1]), "past": [None, 1]}, without_nulls(inputs_of(RAW[3])))
    with triton.InferenceServerClient(ship.base.removeprefix("http://")) as client:
        client.infer("passengers", tensors(RAW[1:2], binary=True), parameters={"client_id": "oip"})
    with ship.admin() as admin:
        listed = admin.get("/v1/models/passengers/reviews", params={"limit": 500}).json()["reviews"]
    kept = {item["client_id"]: item["inputs"] for item in listed if item["client_id"] in ("c-0", "c-1", "oip")}
    bare = {"class": 3, "sex": "male"}
    assert kept["oip"] == {"row": bare, "past": [None, 1]}
    ours = [item["inputs"] for item in listed if item["client_id"] == "c-0" and "fare" not in item["inputs"]]
    assert {"row": {**bare, "age": None, "port": None}, "past": [None, 1]} in ours
    assert not any("NaN" in json.dumps(item) for item in listed)


def test_what_may_be_missing_is_said_where_a_model_is_described(ship: Service, manifest: Manifest) -> None:
    with ship.client() as client:
        (model,) = client.get("/v1/models").json()["models"]
        described = client.get("/openapi.json").json()
    validate(described)
    assert model["inputs"]["row"]["columns"]["port"] == {
        "kind": "category", "optional": True, "values": [*PORTS], "other": "elsewhere",
    }  # fmt: skip
    assert (model["inputs"]["fare"]["default"], model["inputs"]["past"]["nan"]) == (14.5, True)
    schemas = described["components"]["schemas"]
    inputs = schemas["PassengersInputs"]
    assert inputs["required"] == ["row", "past"]
    assert inputs["properties"]["fare"]["default"] == 14.5
    row = schemas[inputs["properties"]["row"]["$ref"].rpartition("/")[2]]
    assert (row["required"], row["additionalProperties"]) == (["class", "sex"], False)
    (port,) = [one for one in row["properties"]["port"]["anyOf"] if one["type"] == "string"]
    assert port["description"].endswith("another text of at most 512 characters counts as elsewhere")
    printed = run(ship.home, "report", manifest.tag)
    assert "row.port" in printed
    assert "null or nothing counts as 14.5" in printed
