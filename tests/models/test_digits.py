"""The demo model: its data and its preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from models.digits import data
from models.digits.preprocessing import Standardise
from models.digits.recipe import RECIPE
from rollout.bundle.lineage import hash_rows
from rollout.training.labels import add_labels
from tests.images import png, three_or_eight
from tests.training.taught import row, write

# The split is the same everywhere: a change of it is a change of every figure that was ever published.
SHA256 = "0f15256a2d648c62a3f284be7b4479523a125334f273411186379d3c2c1a7a9d"


def test_the_parts_are_stratified_disjoint_and_always_the_same() -> None:
    digits = data.load()
    assert [len(part.targets) for part in digits[:3]] == [1078, 359, 360]
    assert hash_rows(*digits[:3]) == SHA256
    for part in digits[:3]:
        share = np.bincount(part.targets) / len(part.targets)
        assert np.abs(share - 0.1).max() < 0.01
        assert part.inputs["image"].shape[1:] == (32, 32)
        assert part.inputs["image"].dtype == np.uint8


def test_a_scan_has_the_information_of_the_data_set() -> None:
    grids = load_digits().images
    assert np.abs(data.to_grid(data.to_scan(grids)) / 255 * 16 - grids).max() < 0.04


def test_statistics_come_from_the_training_part_only_and_constant_cells_stay_zero() -> None:
    digits = data.load()
    standardise = Standardise(digits.train.inputs["image"])
    grids = standardise(torch.from_numpy(digits.train.inputs["image"])).numpy()
    assert np.abs(grids.mean(0)).max() < 1e-5
    constant = digits.train.inputs["image"].reshape(-1, 8, 4, 8, 4).std(0).max((1, 3)) < 3
    assert constant.any()
    assert np.abs(grids[:, constant]).max() < 1
    assert np.allclose(grids.std(0)[~constant], 1, atol=0.01)


def test_v3_is_taught_by_reviewers_and_not_by_what_it_is_measured_on(tmp_path: Path) -> None:
    digits = RECIPE.load()
    small = digits.evaluation.inputs["image"][3, ::4, ::4]  # a caller may send the 8×8 grid as it was scanned
    file = write(
        tmp_path / "labels.jsonl",
        row("a", inputs={"image": three_or_eight()}, model="digits", label="8"),
        row("b", inputs={"image": png(small)}, model="digits", label=str(digits.evaluation.targets[3])),
    )
    taught = add_labels(digits, RECIPE, "v3", {file.name: file})
    assert taught.labels is not None
    assert (taught.labels.used, taught.labels.left_out["held_out"]) == (1, 1)
    assert taught.train.inputs["image"][1078:].tolist() == [three_or_eight()]
    assert taught.train.targets[1078:].tolist() == [8]
    for version in ("v1", "v2"):
        assert add_labels(digits, RECIPE, version, {}) is digits
