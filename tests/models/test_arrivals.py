"""The model with two heads: its data, its versions, and what is answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from models.arrivals import data
from models.arrivals.recipe import RECIPE
from rollout import Dataset, Heads
from rollout.bundle.lineage import hash_rows
from rollout.bundle.schema import Arrays, Labelled
from rollout.bundle.store import open_bundle
from tests.conftest import Service, run_service, set_split

LEAST_ACCURACY = {"v1": 0.75, "v2": 0.86}
LARGEST_ERROR = {"v1": 9.5, "v2": 9.5}  # minutes
DAY = 86_400
FLIGHT = {
    "at": "2013-07-09T18:30:00Z",
    "origin": "EWR",
    "destination": "SFO",
    "carrier": "UA",
}


def run(module: torch.nn.Module, inputs: Arrays) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        outputs: dict[str, torch.Tensor] = module(*map(torch.from_numpy, inputs.values()))
        return outputs


def ask(module: torch.nn.Module, delay: float | None) -> tuple[float, float]:
    """Returns the probability that a flight arrives late, and the minutes in the air."""
    raw = FLIGHT | {"delay": delay}
    outputs = run(module, {name: field.encode([raw[name]]) for name, field in RECIPE.inputs.items()})
    return float(outputs["late"].softmax(1)[0, 1]), float(outputs["minutes"][0, 0])


def accuracy(module: torch.nn.Module, part: Labelled, rows: slice = slice(None)) -> float:
    answers = run(module, part.inputs)["late"].argmax(1).numpy()
    return float((answers == part.targets["late"])[rows].mean())


def test_a_day_is_in_one_part_only(dataset: Dataset) -> None:
    days = [np.unique(part.inputs["at"] // DAY) for part in dataset[:3]]
    assert len(np.unique(np.concatenate(days))) == sum(map(len, days)) == 365


def test_the_parts_have_every_tenth_flight_that_arrived(dataset: Dataset) -> None:
    assert [len(part.targets) for part in dataset[:3]] == [19_983, 6_772, 5_980]
    assert sum(1 for _ in data.flights()) == 327_346
    for part in dataset[:3]:
        assert 0.2 < part.targets["late"].mean() < 0.26
        assert np.isnan(part.inputs["delay"]).mean() == pytest.approx(1 / data.NOT_YET_LEFT, abs=1e-3)


def test_a_flight_is_that_of_the_table(dataset: Dataset) -> None:
    first = next(data.flights())
    assert first == ("2013-01-01", "05:15", "EWR", "IAH", "UA", 2, 11, 227)
    part = dataset[:3][data.part_of(first.day)]
    row = int((part.inputs["at"] == data.AT.encode(["2013-01-01T05:15:00Z"])).argmax())
    assert part.inputs["destination"][row].tobytes() == b"IAH"
    assert part.targets[row].item() == (0, 227.0)


def test_the_hash_of_the_rows_is_of_the_targets_of_both_heads(dataset: Dataset) -> None:
    part = dataset.calibration
    hashes = {hash_rows(part)}
    for name in ("late", "minutes"):
        targets = part.targets.copy()
        targets[name][-1] += 1
        hashes.add(hash_rows(Labelled(part.inputs, targets)))
    assert len(hashes) == 3


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_version_tells_both_answers(
    version: str, dataset: Dataset, modules: dict[str, torch.nn.Module]
) -> None:
    part = dataset.evaluation
    assert accuracy(modules[version], part) > LEAST_ACCURACY[version]
    value, spread = run(modules[version], part.inputs)["minutes"].numpy().T
    misses = np.abs(value - part.targets["minutes"])
    assert misses.mean() < LARGEST_ERROR[version]
    assert spread.min() > 0
    wide = spread > np.median(spread)
    assert misses[wide].mean() > 1.5 * misses[~wide].mean(), "long flights are less sure"


def test_only_the_second_version_knows_how_late_a_flight_left(modules: dict[str, torch.nn.Module]) -> None:
    first, second = ([ask(module, delay) for delay in (None, 0, 60)] for module in modules.values())
    assert first[0] == first[1] == first[2]
    assert second[1][0] < second[0][0] < second[2][0], "before it left, it is in between"
    assert second[1][0] < 0.3
    assert second[2][0] > 0.9
    assert 300 < second[0][1] < 370, "to San Francisco"


def test_the_second_version_is_better_once_a_flight_has_left(
    dataset: Dataset, modules: dict[str, torch.nn.Module]
) -> None:
    part = dataset.evaluation
    waits = slice(None, None, data.NOT_YET_LEFT)
    assert accuracy(modules["v2"], part) > accuracy(modules["v1"], part) + 0.08
    assert accuracy(modules["v2"], part, waits) == pytest.approx(accuracy(modules["v1"], part, waits), abs=0.02)


def test_the_baselines_answer_both_and_the_second_version_beats_them(
    dataset: Dataset, modules: dict[str, torch.nn.Module]
) -> None:
    part, task = dataset.evaluation, RECIPE.version("v2").task
    loss = 1 - accuracy(modules["v2"], part)
    for baseline in RECIPE.baselines.values():
        answers = baseline(dataset.train, part.inputs)
        assert set(answers.dtype.names or ()) == {"late", "minutes"}
        assert loss < task.answer_losses(answers, part.targets).mean()


@pytest.fixture(scope="module")
def service(packed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp(packed)
    set_split(home, "--champion", "v2", model=packed)
    with run_service(home, ROLLOUT_WORKERS="1", ROLLOUT_VARIANT="onnx") as running:
        yield running


def test_flights_are_answered_by_both_heads_as_by_the_module_that_was_trained_here(
    service: Service, modules: dict[str, torch.nn.Module]
) -> None:
    raw = [FLIGHT | {"delay": delay} for delay in (None, -5, 20, 60)]
    with service.client() as client:
        body = {"instances": [{"client_id": f"c-{number}", "inputs": one} for number, one in enumerate(raw)]}
        response = client.post("/v1/models/arrivals/predict", json=body)
    assert response.status_code == 200, response.text
    answers: list[dict[str, Any]] = response.json()["predictions"]
    assert [list(answer["heads"]) for answer in answers] == [["late", "minutes"]] * 4
    task = open_bundle("arrivals:v2")[1].task
    assert isinstance(task, Heads)
    columns = {name: field.encode([one[name] for one in raw]) for name, field in RECIPE.inputs.items()}
    outputs = run(modules["v2"], columns)
    expected = task.scores(torch.cat(list(outputs.values()), 1).numpy())
    got = [(answer["heads"]["late"]["scores"]["late"], answer["heads"]["minutes"]["value"]) for answer in answers]
    assert np.abs(np.array(got) - expected[:, 1:3]).max() < 1e-3
    for answer in answers:
        low, high = answer["heads"]["minutes"]["interval"]
        assert low < answer["heads"]["minutes"]["value"] < high
    assert [answer["heads"]["late"]["label"] for answer in answers][1::2] == ["on time", "late"]
    unsure = task.needs_review(expected)
    assert [answer["review"] for answer in answers] == [("queued" if one else None) for one in unsure]


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_bundle_decides_as_its_author_and_keeps_the_risk_of_each_head(service: Service, version: str) -> None:
    manifest = open_bundle(f"arrivals:{version}")[1]
    assert manifest.reference is not None
    assert (manifest.reference.rows, manifest.reference.flipped) == (48, 0)
    assert {"onnx", "torchscript", "export"} <= set(manifest.variants), "each was compared with the module"
    assert isinstance(manifest.task, Heads)
    assert manifest.task.judged_by == "late"
    assert manifest.task.heads["late"].review_limit < 1, "the surest are answered without a person"
    assert manifest.metrics["minutes_coverage"] == pytest.approx(0.9, abs=0.03)
    assert manifest.metrics["late_accuracy"] > LEAST_ACCURACY[version]
