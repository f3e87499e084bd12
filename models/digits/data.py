"""The data: scans at their original resolution, in three parts that are the same everywhere."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SPLIT_RULE = "stratified by digit, 60 % train, 20 % calibration, 20 % test, scikit-learn random_state 0"


class Part(NamedTuple):
    """Images, ``uint8`` of shape ``(rows, 32, 32)``, white ink on black, and their digits, ``(rows,)``."""

    images: NDArray[np.uint8]
    digits: NDArray[Any]


class Digits(NamedTuple):
    """The three parts of the data set."""

    train: Part
    calibration: Part
    test: Part


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


def load() -> Digits:
    """Loads the data set and splits it."""
    data = load_digits()
    rows = np.arange(len(data.target))
    train, rest = train_test_split(rows, train_size=0.6, stratify=data.target, random_state=0)
    calibration, test = train_test_split(rest, train_size=0.5, stratify=data.target[rest], random_state=0)
    images = to_scan(data.images)
    return Digits(*(Part(images[part], data.target[part]) for part in (train, calibration, test)))


def describe(digits: Digits) -> dict[str, Any]:
    """Returns what the lineage records: source, split rule, rows and a hash of all images and digits."""
    content = hashlib.sha256()
    for part in digits:
        content.update(part.images.tobytes())
        content.update(part.digits.astype(np.uint8).tobytes())
    return {
        "source": "sklearn.datasets.load_digits",
        "split": SPLIT_RULE,
        "rows": [len(part.digits) for part in digits],
        "sha256": content.hexdigest(),
    }
