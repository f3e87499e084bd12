"""Sets of labels and intervals that hold the truth as often as they say, whatever the model and the data.

All of it is split conformal prediction (Papadopoulos et al., "Inductive confidence machines for regression",
2002; Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005): each calibration row has a figure
that says how badly the model did, and what is served leaves room for the figure at rank
``ceil((rows + 1) * coverage)``. The guarantee is over the draw of calibration rows and served row together, which
have to be exchangeable: ``coverage`` or more on average, and at most ``1 / (rows + 1)`` more where no two figures
are the same. It is none for each label or each kind of row alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads.calibration import half_widths

Floats = NDArray[np.float64]

# Of several targets, one row in so many says how their errors compare, and the others how wide intervals are.
SCALED_BY = 3


def rows_needed(coverage: float) -> int:
    """Returns how many calibration rows it takes for what is to hold with probability ``coverage``."""
    return math.ceil(round(coverage / (1 - coverage), 6))


def label_set_threshold(scores: NDArray[Any], targets: NDArray[np.integer[Any]], alpha: float) -> float:
    """Returns the least score with which a label is in the set of its row.

    The least ambiguous set-valued classifier (LAC; Sadinle, Lei & Wasserman, "Least ambiguous set-valued
    classifiers with bounded error levels", 2019): of all sets that hold the truth with probability ``1 - alpha``,
    these have the fewest labels if the scores are the true probabilities. ``label_sets`` makes the sets.

    Args:
        scores: Of the calibration part, shape ``(rows, classes)``, the higher the likelier.
        targets: Index of the true class, shape ``(rows,)``.
        alpha: How often a set may miss the truth, between 0 and 1.

    Returns:
        It, rounded down to a float32, so that scores in that type are compared as they were here.

    Raises:
        BundleError: If the rows are too few for ``alpha``, or a score is not a number.
    """
    of_truth = np.asarray(scores, np.float64)[np.arange(len(targets)), targets]
    threshold = np.float32(-_quantile(-of_truth, 1 - alpha, "sets that hold the truth in"))
    return float(np.nextafter(threshold, np.float32(-np.inf)))


def label_sets(scores: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Returns which labels are in the set of each row: those at the threshold or above, and always the best.

    Without the best, a row of which the model knows little would have an empty set: it says that the row is
    unlike all others, which nobody reads out of it, and the answer itself would be missing. More labels in a set
    never make it miss more, so that the guarantee stays; where sets would have been empty, they hold the truth
    more often.

    Args:
        scores: Shape ``(rows, classes)``.
        threshold: As ``label_set_threshold`` gives it.

    Returns:
        Shape ``(rows, classes)``.
    """
    is_in = np.asarray(scores >= threshold)
    is_in[np.arange(len(scores)), scores.argmax(-1)] = True
    return is_in


def quantile_margin(low: NDArray[Any], high: NDArray[Any], targets: NDArray[Any], coverage: float) -> float:
    """Returns by how much both ends of an interval between two quantiles have to move outwards.

    Conformalized quantile regression (Romano, Patterson & Candès, "Conformalized Quantile Regression", 2019,
    theorem 1): the figure of a row is how far its target lies outside, negative inside. ``widen`` moves the ends.

    Args:
        low: The lower quantile of each calibration row, as the model says it, shape ``(rows,)``.
        high: The upper one, shape ``(rows,)``; where it lies below the lower one, the guarantee holds as well.
        targets: The true values, shape ``(rows,)``.
        coverage: Share of targets that intervals are to contain, whatever quantiles the model was trained for.

    Returns:
        It, in units of the target; negative where the model's quantiles lie too far out.

    Raises:
        BundleError: If the rows are too few for ``coverage``, or a quantile is not a number.
    """
    outside = np.maximum(np.asarray(low, np.float64) - targets, targets - np.asarray(high, np.float64))
    return _quantile(outside, coverage, "intervals that cover")


def widen(low: NDArray[Any], high: NDArray[Any], margin: float) -> tuple[Floats, Floats]:
    """Returns the ends of intervals between two quantiles, moved outwards by a margin.

    A negative margin can move them past each other. Such an interval holds nothing, and becomes the point in the
    middle of it, which misses no more.

    Args:
        low: The lower quantile of each row, shape ``(rows,)``.
        high: The upper one, shape ``(rows,)``.
        margin: As ``quantile_margin`` gives it.
    """
    lower, upper = np.asarray(low, np.float64) - margin, np.asarray(high, np.float64) + margin
    middle = (lower + upper) / 2
    return np.minimum(lower, middle), np.maximum(upper, middle)


def joint_half_widths(residuals: NDArray[Any], coverage: float) -> Floats:
    """Returns half the width of the interval of each target, such that all of a row hold together.

    The figure of a row is its largest residual, each in units of its target's scale, and an interval is as many
    scales wide (the max-statistic; Diquigiovanni, Fontana & Vantini, "Conformal prediction bands for multivariate
    functional data", 2022, whose modulation function is the scale). One row in three says what the scales are,
    the quantile of its residuals at ``coverage``, and the others, which the scales do not depend on, how many of
    them it takes: with scales of the same rows the guarantee would not hold. One target needs no scale and has
    all rows.

    Args:
        residuals: How far each value of the calibration part is from its target, in units of its spread where
            there is one, shape ``(rows, targets)``.
        coverage: Share of rows of which every target is to lie within its interval.

    Returns:
        Shape ``(targets,)``.

    Raises:
        BundleError: If the rows are too few for ``coverage``, or a residual is not a number.
    """
    found = np.asarray(residuals, np.float64)
    _check_numbers(found)
    if found.shape[1] == 1:
        return np.array([_quantile(found[:, 0], coverage, "intervals that cover")])
    _check_coverage(coverage)
    scaled_by = np.arange(len(found)) % SCALED_BY == 0
    first, rest = found[scaled_by], found[~scaled_by]
    _check_rows(len(rest), coverage, "joint intervals that cover", spared=len(first))
    scales = np.quantile(first, coverage, axis=0)
    scales[~(scales > 0)] = 1.0  # whatever it is: it only must not depend on the others
    return np.asarray(scales * _quantile((rest / scales).max(1), coverage, "joint intervals that cover"))


def _quantile(figures: Floats, coverage: float, what: str) -> float:

    _check_coverage(coverage)
    _check_rows(len(figures), coverage, what)
    _check_numbers(figures)
    return float(half_widths(figures, coverage))


def _check_coverage(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise BundleError(f"a coverage of {coverage:g} cannot be promised: give one between 0 and 1")


def _check_numbers(figures: Floats) -> None:
    wrong = int(np.isnan(figures).reshape(len(figures), -1).any(1).sum())
    if wrong:
        raise BundleError(f"{wrong} of {len(figures)} calibration rows have an answer that is not a number")


def _check_rows(rows: int, coverage: float, what: str, spared: int = 0) -> None:
    needed = rows_needed(coverage)
    if rows < needed:
        if spared:
            needed += math.ceil(needed / (SCALED_BY - 1))
        raise BundleError(
            f"{rows + spared} calibration rows are too few for {what} {coverage:.1%}: it takes {needed}, since "
            "they are as wide as one row needs them"
        )
