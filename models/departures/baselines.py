"""What a model must beat: two averages that anybody could compute by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.schema import Arrays, Labelled


def mean(train: Labelled, inputs: Arrays) -> NDArray[Any]:
    """Returns the mean of the training part, for every row."""
    return np.full(len(inputs["at"]), train.targets.mean())


def mean_of_hour_and_origin(train: Labelled, inputs: Arrays) -> NDArray[Any]:
    """Returns for each row the mean of the training rows of the same hour of the day and airport."""
    groups, group_of = np.unique(_hour_and_origin(train.inputs), axis=0, return_inverse=True)
    means = np.bincount(group_of, train.targets) / np.bincount(group_of)
    same = (_hour_and_origin(inputs)[:, None] == groups).all(2)
    found: NDArray[Any] = np.where(same.any(1), means[same.argmax(1)], train.targets.mean())
    return found


def _hour_and_origin(inputs: Arrays) -> NDArray[Any]:
    hours = inputs["at"] % 86_400 // 3600
    return np.column_stack([hours, inputs["origin"]])
