"""Rows of any length over HTTP: many lengths in one request, each answered as if it were alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import torch
import tritonclient.grpc as triton

from rollout import Classification
from tests.bundle.steps import LONGEST, Masked, pack_steps, part
from tests.conftest import Service, free_port, run_service, set_split
from tests.http.conftest import HOST


class Served(NamedTuple):
    """A service, and what its model says.

    Attributes:
        service: The service.
        grpc: Where it answers gRPC.
        expect: Returns what the module answers to each row by itself: the scores of "yes".
    """

    service: Service
    grpc: str
    expect: Callable[[Sequence[Any]], Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.manual_seed(1)
    module = Masked().eval()
    task = pack_steps("http", module).task
    assert isinstance(task, Classification)

    def expect(rows: Sequence[Any]) -> Any:
        with torch.no_grad():
            logits = [module(torch.tensor(row)[None], torch.tensor([len(row)])) for row in rows]
        return torch.softmax(torch.cat(logits) / task.temperature, 1).numpy()[:, 1]

    home = tmp_path_factory.mktemp("steps")
    set_split(home, "--champion", "http", model="steps")
    port = free_port()
    with run_service(home, ROLLOUT_GRPC_PORT=str(port)) as service:
        yield Served(service, f"{HOST}:{port}", expect)


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with served.service.client() as client:
        yield client


def test_rows_of_different_lengths_are_answered_together_as_alone(served: Served, client: httpx.Client) -> None:
    rows = [*part(60, 5).inputs["steps"], np.ones((1, 3), np.float32), np.ones((LONGEST, 3), np.float32)]
    instances = [{"client_id": f"c{at}", "inputs": {"steps": row.tolist()}} for at, row in enumerate(rows)]
    answer = client.post("/v1/models/steps/predict", json={"instances": instances})
    assert answer.status_code == 200, answer.text
    got = [one["scores"]["yes"] for one in answer.json()["predictions"]]
    assert np.allclose(got, served.expect(rows), atol=1e-4)
    lines = "\n".join(map(json.dumps, instances))
    answer = client.post(
        "/v1/models/steps/predict", content=lines, headers={"Content-Type": "application/x-ndjson"}
    )
    assert np.allclose([json.loads(line)["scores"]["yes"] for line in answer.iter_lines()], got, atol=1e-6)


def test_faults_of_length_are_pointed_at(client: httpx.Client) -> None:
    bodies = [[], [[0, 0, 0]] * (LONGEST + 1), [[0, 0]]]
    instances = [{"client_id": "c", "inputs": {"steps": steps}} for steps in bodies]
    answer = client.post("/v1/models/steps/predict", json={"instances": instances})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [
        "#/instances/0/inputs/steps",
        "#/instances/1/inputs/steps",
        "#/instances/2/inputs/steps/0",
    ]


def test_the_schema_says_how_long_a_row_may_be(client: httpx.Client) -> None:
    inputs = client.get("/openapi.json").json()["components"]["schemas"]["StepsInputs"]["properties"]["steps"]
    assert (inputs["minItems"], inputs["maxItems"]) == (1, LONGEST)
    assert client.get("/v1/models/steps").json()["inputs"]["steps"]["longest"] == LONGEST
    metadata = client.get("/v2/models/steps").json()["inputs"]
    assert [(one["name"], one["datatype"], one["shape"]) for one in metadata] == [
        ("steps", "FP32", [-1, -1, 3]),
        ("steps_lengths", "INT64", [-1]),
    ]


@pytest.mark.parametrize("lengths", [None, [2, 5]])
def test_a_tensor_may_come_with_lengths_of_its_own(
    served: Served, client: httpx.Client, lengths: list[int] | None
) -> None:
    array = np.random.default_rng(3).normal(size=(2, 5, 3)).astype(np.float32)
    inputs = [{"name": "steps", "datatype": "FP32", "shape": [2, 5, 3], "data": array.ravel().tolist()}]
    if lengths:
        inputs.append({"name": "steps_lengths", "datatype": "INT64", "shape": [2], "data": lengths})
    answer = client.post("/v2/models/steps/infer", json={"inputs": inputs, "outputs": [{"name": "scores"}]})
    assert answer.status_code == 200, answer.text
    rows = [row[:length] for row, length in zip(array, lengths or [5, 5], strict=True)]
    got = np.array(answer.json()["outputs"][0]["data"]).reshape(2, 2)[:, 1]
    assert np.allclose(got, served.expect(rows), atol=1e-4)


@pytest.mark.parametrize("lengths", [None, [2, 5]])
def test_so_it_may_over_grpc(served: Served, lengths: list[int] | None) -> None:
    array = np.random.default_rng(4).normal(size=(2, 5, 3)).astype(np.float32)
    inputs = [triton.InferInput("steps", array.shape, "FP32").set_data_from_numpy(array)]
    if lengths:
        said = np.array(lengths, np.int64)
        inputs.append(triton.InferInput("steps_lengths", said.shape, "INT64").set_data_from_numpy(said))
    with triton.InferenceServerClient(served.grpc) as client:
        got = client.infer("steps", inputs).as_numpy("scores")[:, 1]
    rows = [row[:length] for row, length in zip(array, lengths or [5, 5], strict=True)]
    assert np.allclose(got, served.expect(rows), atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "lengths", "pointer", "words"),
    [
        ([2, LONGEST + 1, 3], [1, 1], "#/inputs/0/shape", "1 to 64 steps"),
        ([2, 5, 3], [1, 6], "#/inputs/1", "row has 5 steps"),
        ([2, 5, 3], [1], "#/inputs/1/shape", "a length for each row"),
        ([2, 5, 3], [0, 1], "#/inputs/1/data/0", ">= 1"),
    ],
)
def test_lengths_that_do_not_fit_their_tensor_are_refused(
    client: httpx.Client, shape: list[int], lengths: list[int], pointer: str, words: str
) -> None:
    inputs = [
        {"name": "steps", "datatype": "FP32", "shape": shape, "data": [0.0] * int(np.prod(shape))},
        {"name": "steps_lengths", "datatype": "INT64", "shape": [len(lengths)], "data": lengths},
    ]
    answer = client.post("/v2/models/steps/infer", json={"inputs": inputs})
    assert answer.status_code == 422
    assert (answer.json()["errors"][0]["pointer"], words in answer.json()["errors"][0]["detail"]) == (
        pointer,
        True,
    )
