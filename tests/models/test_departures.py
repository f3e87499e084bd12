"""The time model: its data, its versions and what they are exported to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.departures import data
from models.departures.recipe import RECIPE
from rollout.bundle.schema import Arrays, Labelled
from rollout.bundle.source import ModuleSource
from rollout.bundle.variants import VARIANTS
from rollout.heads import Regression
from rollout.training.recipe import Dataset

# Mean absolute errors, in flights: v2 does not know the day of the week, which decides much.
LARGEST_ERROR = {"v1": 1.8, "v2": 2.3}
DAY = 86_400


def run(module: torch.nn.Module, inputs: Arrays) -> NDArray[Any]:
    with torch.no_grad():
        outputs: NDArray[Any] = module(*(torch.from_numpy(inputs[name]) for name in RECIPE.inputs)).numpy()
        return outputs


def ask(module: torch.nn.Module, at: str, origin: str) -> NDArray[Any]:
    inputs = {"at": data.AT.encode([at]), "origin": data.ORIGIN.encode([origin])}
    values: NDArray[Any] = run(module, inputs)[0]
    return values


def error(part: Labelled, values: NDArray[Any]) -> float:
    return float(np.abs(values - part.targets).mean())


def test_a_day_is_in_one_part_only_and_whole(dataset: Dataset) -> None:
    days = [np.unique(part.inputs["at"] // DAY, return_counts=True) for part in dataset[:3]]
    assert len(np.unique(np.concatenate([day for day, _ in days]))) == sum(len(day) for day, _ in days) == 365
    for _, rows in days:
        assert set(rows) == {len(data.HOURS) * len(data.ORIGIN.values)}


def test_the_hours_hold_all_flights_but_one_at_night(dataset: Dataset) -> None:
    assert sum(float(part.targets.sum()) for part in dataset[:3]) == 336_776 - 1
    empty = np.concatenate([part.targets for part in dataset[:3]]) == 0
    assert 0.03 < empty.mean() < 0.1


def test_an_hour_is_that_of_the_table(dataset: Dataset) -> None:
    (row,) = [hour for hour in data.hours() if hour[:3] == ("2013-01-31", 6, "EWR")]
    part = dataset[:3][data.part_of(row.day)]
    at = part.inputs["at"] == data.AT.encode(["2013-01-31T06:00:00Z"])
    origin = (part.inputs["origin"] == data.ORIGIN.encode(["EWR"])).all(1)
    assert part.targets[at & origin].tolist() == [row.flights]


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_version_beats_the_baselines_and_knows_how_sure_it_is(
    version: str, dataset: Dataset, modules: dict[str, torch.nn.Module]
) -> None:
    part = dataset.evaluation
    value, spread = run(modules[version], part.inputs).T
    assert spread.min() > 0
    assert error(part, value) < LARGEST_ERROR[version]
    for baseline in RECIPE.baselines.values():
        assert error(part, value) < error(part, baseline(dataset.train, part.inputs))
    wide = spread > np.median(spread)
    misses = np.abs(value - part.targets)
    assert misses[wide].mean() > 1.5 * misses[~wide].mean()


def test_only_the_first_version_knows_the_day_of_the_week(modules: dict[str, torch.nn.Module]) -> None:
    days = [f"2026-11-{day:02}T10:00:00Z" for day in (7, 14)]  # Saturdays
    first, second = ([ask(module, at, "LGA")[0] for at in days] for module in modules.values())
    assert first[0] == first[1] != ask(modules["v1"], "2026-11-09T10:00:00Z", "LGA")[0]
    assert second[0] != second[1]
    assert (
        ask(modules["v2"], "2026-11-07T10:00:00Z", "LGA")[0]
        == ask(modules["v2"], "2026-12-07T10:00:00Z", "LGA")[0]
    )


@pytest.mark.parametrize("version", RECIPE.versions)
def test_every_exact_variant_agrees(
    version: str, dataset: Dataset, modules: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    inputs = {name: array[:500].copy() for name, array in dataset.evaluation.inputs.items()}
    inputs["at"][:2] = data.AT.encode(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
    example = {name: array[:2] for name, array in inputs.items()}
    source = ModuleSource(modules[version], Regression(half_width=2.5), example)
    for variant in VARIANTS.values():
        if variant.is_exact:
            (tmp_path / variant.file).parent.mkdir()
            variant.export(source, inputs, tmp_path)
            scores = variant(tmp_path / variant.file).run(inputs)
            assert np.abs(scores - source.run(inputs)).max() < 1e-4, variant.name
