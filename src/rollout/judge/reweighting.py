"""What the accuracy may have become where a feature moved: that of each bin, in the live mix of bins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.judge.accuracy import Z
from rollout.judge.baseline import Baseline

Floats = NDArray[np.float64]


class Seen(NamedTuple):
    """A live row that people have decided.

    Attributes:
        value: Its figure of the feature, as ``Feature.values`` has it.
        weight: Rows that it stands for, ``1 / pi``: 1 or more.
        right: Whether the model had said the same; how far, from 0 to 1, where an answer may be right in part.
    """

    value: float
    weight: float
    right: float


class PredictedAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """The accuracy in another mix of rows.

    Attributes:
        feature: The feature by whose bins it is told.
        before: That of the evaluation part.
        estimate: That of live rows; rows of which nothing is known count as half right.
        low: The lower end of its 95 % interval; of these rows as if all were wrong.
        high: The upper end; as if all were right.
        reviewed: Live rows that it rests on, beside the evaluation part.
        unknown: The share of live rows in bins of which nothing is known.
    """

    feature: str
    before: float
    estimate: float
    low: float
    high: float
    reviewed: int
    unknown: float


def predict_accuracy(
    baseline: Baseline, feature: str, live: Floats, seen: Sequence[Seen] = ()
) -> PredictedAccuracy | None:
    """Predicts the accuracy on live rows from that of each bin.

    The estimate is ``sum(q_k * p_k)`` with the live share ``q_k`` of a bin and its accuracy ``p_k``: direct
    standardisation, which holds as long as rows of a bin are as hard as they were ("covariate shift": Shimodaira,
    "Improving predictive inference under covariate shift", 2000). Evaluation and reviewed rows speak for a bin
    together, reviewed ones by their weights (Hájek 1971), as ``sum(w)² / sum(w²)`` rows (Kish 1965). Each bin has
    Wilson's interval (1927); MOVER combines them (Zou & Donner 2008).

    Args:
        baseline: Of the evaluation part.
        feature: One of its features.
        live: The sketch of live rows.
        seen: Live rows that people decided.

    Returns:
        ``None`` where the answers are neither right nor wrong, the feature is not looked at, or no row is there.
    """
    bins = baseline.features.get(feature)
    if bins is None or not bins.right:
        return None
    counts = live[baseline.slices[feature]]
    if not counts.sum() > 0:
        return None
    known, right = np.array(bins.counts, np.float64), np.array(bins.right)
    before = float(right.sum() / max(known.sum(), 1))
    places = bins.places(np.array([each.value for each in seen], np.float64))
    weights, told = np.array([each.weight for each in seen]), np.array([each.right for each in seen])
    total, squares = (np.bincount(places, each, bins.size) for each in (weights, weights**2))
    # As many rows as the reviewed ones of a bin are worth, with their accuracy.
    worth = np.divide(total**2, squares, out=np.zeros(bins.size), where=squares > 0)
    hits_of_weight = np.bincount(places, weights * told, bins.size)
    share = np.divide(hits_of_weight, total, out=np.zeros(bins.size), where=total > 0)
    rows, hits = known + worth, right + worth * share
    mix = counts / counts.sum()
    is_known = rows > 0
    unknown = float(mix[~is_known].sum())
    estimate, low, high = _wilson(hits[is_known], rows[is_known])
    part = mix[is_known]
    middle = float((part * estimate).sum())
    below = math.sqrt(float(((part * (estimate - low)) ** 2).sum()))
    above = math.sqrt(float(((part * (high - estimate)) ** 2).sum()))
    return PredictedAccuracy(
        feature=feature,
        before=before,
        estimate=middle + unknown / 2,
        low=max(0.0, middle - below),
        high=min(1.0, middle + above + unknown),
        reviewed=len(seen),
        unknown=unknown,
    )


def _wilson(hits: Floats, rows: Floats) -> tuple[Floats, Floats, Floats]:
    p = hits / rows
    centre = (p + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    half = Z * np.sqrt(p * (1 - p) / rows + Z**2 / (4 * rows**2)) / (1 + Z**2 / rows)
    return p, centre - half, centre + half
