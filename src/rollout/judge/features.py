"""Features: what is looked at of rows, to see whether they are like those that a model was evaluated on."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
# Rows of so many numbers, or fewer, have each of them looked at; longer ones as a whole.
MOST_NUMBERS = 16


class Feature(NamedTuple):
    """One figure of each row.

    Attributes:
        values: ``float64`` of shape ``(rows,)``: NaN where it is missing, infinite where it is no finite number.
            Of categories, their index.
        categories: The categories by index; empty for numbers.
        unit: The unit of numbers; empty where they have none.
        period_s: Seconds after which it repeats by itself, as the hour of the day does: only whole periods are
            compared. 0 for what does not.
    """

    values: NDArray[np.float64]
    categories: tuple[str, ...] = ()
    unit: str = ""
    period_s: float = 0.0


# By name; the one that is the value itself has an empty name.
Features = dict[str, Feature]


def number(values: NDArray[Any], unit: str = "") -> Feature:
    """Returns numbers as a feature."""
    return Feature(np.asarray(values, np.float64), unit=unit)


def named(name: str, features: Features) -> Features:
    """Returns features under the name of what they are of.

    Example:
        >>> [*named("image", {"": number(np.ones(1)), "contrast": number(np.ones(1))})]
        ['image', 'image.contrast']
    """
    return {f"{name}.{own}" if own and name else own or name: feature for own, feature in features.items()}


def of_rows(rows: NDArray[Any]) -> Features:
    """Returns the features of rows of as many numbers each: of a few, each number; of more, their spread.

    Args:
        rows: Shape ``(rows, …)``.
    """
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    if flat.shape[1] == 1:
        return {"": number(flat[:, 0])}
    if flat.shape[1] <= MOST_NUMBERS:
        return {str(place): number(flat[:, place]) for place in range(flat.shape[1])}
    return spread(flat.ravel(), np.arange(len(flat)) * flat.shape[1])


def spread(numbers: NDArray[Any], starts: NDArray[np.intp]) -> Features:
    """Returns mean, standard deviation and extremes of the numbers of each row, and how many are missing.

    Args:
        numbers: All rows one after another, NaN where a number is missing; each row has one at least.
        starts: Where each row begins.
    """
    flat = numbers.astype(np.float64)
    is_there = ~np.isnan(flat)
    known = np.where(is_there, flat, 0.0)
    sizes = np.diff(np.append(starts, len(flat)))
    if not len(starts):
        counts = total = squares = least = most = np.zeros(0)
    else:
        counts = np.add.reduceat(is_there.astype(np.float64), starts)
        total, squares = np.add.reduceat(known, starts), np.add.reduceat(known**2, starts)
        least = np.minimum.reduceat(np.where(is_there, flat, np.inf), starts)
        most = np.maximum.reduceat(np.where(is_there, flat, -np.inf), starts)
    nothing = counts == 0
    divisor = np.where(nothing, 1.0, counts)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = total / divisor
        deviation = np.sqrt(np.maximum(squares / divisor - mean**2, 0.0))
    found = {"mean": mean, "deviation": deviation, "smallest": least, "largest": most}
    features = {name: number(np.where(nothing, np.nan, each)) for name, each in found.items()}
    return features | {"missing_share": number(1 - counts / np.maximum(sizes, 1))}
