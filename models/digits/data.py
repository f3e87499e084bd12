"""The data: scans at their original resolution, in three parts that are the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from rollout import Dataset, Labelled

SPLIT_RULE = "stratified by digit, 60 % train, 20 % calibration, 20 % test, scikit-learn random_state 0"


def to_scan(grids: NDArray[Any]) -> NDArray[np.uint8]:
    """Gives each cell of an 8×8 grid its 4×4 block of pixels back.

    The data set counts the inked pixels of every 4×4 block of a 32×32 scan, 0 to 16. Which of the 16 were inked
    is lost, so the block gets their mean brightness.

    Args:
        grids: Counts from 0 to 16, shape ``(rows, 8, 8)``.

    Returns:
        ``uint8`` of shape ``(rows, 32, 32)``.
    """
    brightness = np.rint(grids * 255 / 16).astype(np.uint8)
    return brightness.repeat(4, axis=1).repeat(4, axis=2)


def to_grid(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns the mean brightness of each 4×4 block, shape ``(rows, 8, 8)``: the inverse of ``to_scan``."""
    grids: NDArray[np.float64] = images.reshape(-1, 8, 4, 8, 4).mean((2, 4))
    return grids


def load() -> Dataset:
    """Loads the data set and splits it; the input is ``image``, ``uint8`` of shape ``(rows, 32, 32)``."""
    data = load_digits()
    rows = np.arange(len(data.target))
    train, rest = train_test_split(rows, train_size=0.6, stratify=data.target, random_state=0)
    calibration, test = train_test_split(rest, train_size=0.5, stratify=data.target[rest], random_state=0)
    images = to_scan(data.images)

    def part(rows: NDArray[Any]) -> Labelled:
        return Labelled({"image": images[rows]}, data.target[rows])

    return Dataset(part(train), part(calibration), part(test), "sklearn.datasets.load_digits", SPLIT_RULE)
