"""The demo model: its data and its preprocessing."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from models.digits import data
from models.digits.preprocessing import Standardise

# The split is the same everywhere: a change of it is a change of every figure that was ever published.
SHA256 = "6ff46e4be40d49250db69756eae7211a85b80106cad75e7b3ce315251a881283"


def test_the_parts_are_stratified_disjoint_and_always_the_same() -> None:
    digits = data.load()
    assert [len(part.digits) for part in digits] == [1078, 359, 360]
    assert data.describe(digits)["sha256"] == SHA256
    for part in digits:
        share = np.bincount(part.digits) / len(part.digits)
        assert np.abs(share - 0.1).max() < 0.01
        assert part.images.shape[1:] == (32, 32)
        assert part.images.dtype == np.uint8


def test_a_scan_has_the_information_of_the_data_set() -> None:
    grids = load_digits().images
    assert np.abs(data.to_grid(data.to_scan(grids)) / 255 * 16 - grids).max() < 0.04


def test_statistics_come_from_the_training_part_only_and_constant_cells_stay_zero() -> None:
    digits = data.load()
    standardise = Standardise(digits.train.images)
    grids = standardise(torch.from_numpy(digits.train.images)).numpy()
    assert np.abs(grids.mean(0)).max() < 1e-5
    constant = digits.train.images.reshape(-1, 8, 4, 8, 4).std(0).max((1, 3)) < 3
    assert constant.any()
    assert np.abs(grids[:, constant]).max() < 1
    assert np.allclose(grids.std(0)[~constant], 1, atol=0.01)
