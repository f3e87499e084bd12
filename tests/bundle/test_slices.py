"""Slices: one on which a model errs is found, and where mistakes know nothing of the inputs, hardly ever one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rollout.bundle.slices import LEAST_ROWS, LEVEL, find_slices, holm, wilson
from rollout.judge.features import Feature, Features


def figures(rows: int, chance: np.random.Generator, many: int = 6) -> Features:
    drawn = {f"x{number}": Feature(chance.normal(size=rows)) for number in range(many)}
    ports = Feature(chance.integers(0, 4, rows).astype(float), categories=("C", "Q", "S", "N"))
    return drawn | {"port": ports}


def errs(rows: int, chance: np.random.Generator, share: float = 0.05) -> NDArray[np.bool_]:
    return np.asarray(chance.random(rows) < share)


def test_a_planted_slice_is_found_with_its_interval_and_examples() -> None:
    chance = np.random.default_rng(0)
    features = figures(2000, chance)
    dark = features["x3"].values < np.quantile(features["x3"].values, 0.2)
    mistakes = errs(2000, chance) | dark & errs(2000, chance, 0.15)
    found = find_slices(features, mistakes)
    first = found.slices[0]
    assert first.name.startswith("x3 from ")
    assert first.p_value < 1e-6
    assert first.rows == 400
    assert first.low < first.rate < first.high
    assert first.mistakes == mistakes[dark].sum()
    assert set(first.examples) <= set(np.flatnonzero(dark & mistakes).tolist())
    assert len(first.examples) == 4
    assert all(one.p_value > LEVEL for one in found.slices[1:])


def test_categories_few_values_and_what_is_missing_are_slices_of_their_own() -> None:
    rows = 400
    port = Feature(np.array([0.0, 1.0] * (rows // 2)), categories=("C", "Q"))
    hour = Feature(np.array([8.0] * 150 + [20.0] * 150 + [np.nan] * 100), unit="h")
    rare = Feature(np.array([1.0] * (LEAST_ROWS - 1) + [2.0] * (rows - LEAST_ROWS + 1)))
    mistakes = np.isnan(hour.values) & (np.arange(rows) % 2 == 0)
    found = find_slices({"port": port, "hour": hour, "rare": rare}, mistakes)
    names = {one.name for one in found.slices}
    assert names == {"port is C", "port is Q", "hour is 8 h", "hour is 20 h", "hour missing", "rare is 2"}
    assert found.looked_at == 6
    assert found.slices[0].name == "hour missing"
    assert (found.slices[0].rows, found.slices[0].mistakes) == (100, 50)


def test_where_mistakes_know_nothing_of_the_inputs_a_slice_is_rarely_found() -> None:
    """Of 300 analyses of some 34 slices each, at most 5 % may find any; uncorrected, most would."""
    chance = np.random.default_rng(1)
    found = [find_slices(figures(400, chance), errs(400, chance, 0.1)) for _ in range(300)]
    assert min(each.looked_at for each in found) >= 30
    assert sum(each.slices[0].p_value < LEVEL for each in found) <= 15


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_mistakes_or_without_anything_else_nothing_stands_out(share: float) -> None:
    chance = np.random.default_rng(2)
    found = find_slices(figures(200, chance), errs(200, chance, share))
    assert {one.p_value for one in found.slices} == {1.0}


def test_no_rows_have_no_slices() -> None:
    found = find_slices({"x": Feature(np.zeros(0))}, np.zeros(0, bool))
    assert found.slices == []
    assert wilson(0, 0) == (0.0, 1.0)


def test_values_that_are_no_number_are_told_apart() -> None:
    values = np.concatenate([np.arange(100.0), [np.inf] * 50])
    found = find_slices({"x": Feature(values)}, np.isinf(values))
    assert found.slices[0].name == "x not finite"
    assert found.slices[0].mistakes == 50


def test_holm_is_monotone_and_at_most_one() -> None:
    assert holm([]) == []
    assert holm([0.04, 0.01, 0.9, 0.03]) == pytest.approx([0.09, 0.04, 0.9, 0.09])
