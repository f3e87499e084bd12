"""What a model must beat: two classifiers that anybody could compute by hand."""

from __future__ import annotations

import numpy as np

from models.digits.data import Digits, to_grid


def majority_class(digits: Digits) -> float:
    """Accuracy on the test part of always answering the most frequent digit of the training part."""
    return float((digits.test.digits == np.bincount(digits.train.digits).argmax()).mean())


def nearest_centroid(digits: Digits) -> float:
    """Accuracy on the test part of answering the digit whose mean training image is nearest."""
    train, test = to_grid(digits.train.images), to_grid(digits.test.images)
    centroids = np.stack([train[digits.train.digits == digit].mean(0) for digit in range(10)])
    distances = ((test[:, None] - centroids) ** 2).sum((2, 3))
    return float((distances.argmin(1) == digits.test.digits).mean())
