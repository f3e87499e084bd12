"""Slices: parts of the rows, by what their inputs are like, on which a model errs more than elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.judge.features import Feature, Features

LEAST_ROWS = 20
BINS = 5
# A feature with at most so many values is looked at by value, one with more in bins of equal size.
MOST_VALUES = 12
LEVEL = 0.05


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that are alike in one feature.

    Attributes:
        name: Which.
        rows: How many.
        mistakes: Mistakes among them.
        rate: The share of these.
        low: Lower end of its 95 % interval.
        high: Its upper end.
        p_value: How likely mistakes that know nothing of the inputs would have any slice of all that were looked
            at stand out as clearly.
        examples: Some of its mistakes, by row.
    """

    name: str
    rows: int
    mistakes: int
    rate: float
    low: float
    high: float
    p_value: float
    examples: list[int] = []


class Sliced(NamedTuple):
    """What was found in slices.

    Attributes:
        slices: All, those that stand out most first.
        looked_at: How many there are, each of ``LEAST_ROWS`` or more.
    """

    slices: list[Slice]
    looked_at: int


def find_slices(features: Features, mistakes: NDArray[np.bool_], examples: int = 4) -> Sliced:
    """Compares the share of mistakes in every slice with that in all other rows.

    The p-value of a slice is that of Fisher's exact test, one-sided ("The Design of Experiments", 1935): a slice
    that was drawn at random from all rows has a hypergeometric number of mistakes. All are corrected together by
    Holm's method ("A simple sequentially rejective multiple test procedure", 1979), which holds however slices
    overlap: where inputs have nothing to do with mistakes, any slice falls below 5 % in one of 20 analyses.

    Args:
        features: Figures of the rows, by name.
        mistakes: Which rows are mistakes.
        examples: So many mistakes of each slice are named.
    """
    from scipy import stats  # noqa: PLC0415  serving imports this package, and not SciPy

    total, wrong = len(mistakes), int(mistakes.sum())
    found = [
        (name, rows)
        for feature, figures in features.items()
        for name, rows in _slices(feature, figures)
        if LEAST_ROWS <= rows.sum() < total
    ]
    counts = [(int(rows.sum()), int((rows & mistakes).sum())) for _, rows in found]
    p_values = holm([float(stats.hypergeom.sf(errors - 1, total, wrong, size)) for size, errors in counts])
    slices = []
    for (name, rows), (size, errors), p_value in zip(found, counts, p_values, strict=True):
        low, high = wilson(errors, size)
        shown = np.flatnonzero(rows & mistakes)[:examples].tolist()
        rate = errors / size
        slices.append(
            Slice(
                name=name,
                rows=size,
                mistakes=errors,
                rate=rate,
                low=low,
                high=high,
                p_value=p_value,
                examples=shown,
            )
        )
    return Sliced(sorted(slices, key=lambda one: (one.p_value, -one.rate, one.name)), len(slices))


def wilson(mistakes: int, rows: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share ("Probable inference", 1927); 0 to 1 where there are no rows."""
    from scipy import stats  # noqa: PLC0415

    if not rows:
        return 0.0, 1.0
    interval = stats.binomtest(mistakes, rows).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number by Holm's method.

    Example:
        >>> holm([0.01, 0.5, 0.02])
        [0.03, 0.5, 0.04]
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(order))
    raised = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1.0) if len(order) else raised
    return [float(one) for one in corrected]


def _slices(name: str, feature: Feature) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yields the slices of a feature, which do not depend on where the mistakes are."""
    values = feature.values
    known = np.isfinite(values)
    yield f"{name} missing", np.isnan(values)
    yield f"{name} not finite", np.isinf(values)
    unit = f" {feature.unit}" if feature.unit else ""
    found = np.unique(values[known])
    if feature.categories or len(found) <= MOST_VALUES:
        for value in found.tolist():
            said = feature.categories[int(value)] if feature.categories else f"{value:.6g}{unit}"
            yield f"{name} is {said}", values == value
        return
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, BINS + 1)))
    for low, high in itertools.pairwise(edges):
        is_last = high == edges[-1]
        within = (values >= low) & ((values <= high) if is_last else (values < high))
        yield f"{name} from {low:.4g} to {'' if is_last else 'below '}{high:.4g}{unit}", within
