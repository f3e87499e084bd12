"""Histograms of confidences as bars, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from rollout.buckets import CONFIDENCE_BUCKETS
from rollout.routing.changes import percent
from rollout.routing.traffic import ArmTraffic

HEIGHT = 100
EDGES = (0, *CONFIDENCE_BUCKETS)
LABELS = tuple(f"{low:g} to {high:g}" for low, high in pairwise(EDGES))


class Histogram(NamedTuple):
    """The confidences of one arm.

    Attributes:
        shares: Share of the predictions in each bucket of ``LABELS``; empty without predictions.
        heights: The same as heights of bars, up to ``HEIGHT``.
        text: What the bars show.
    """

    shares: list[float]
    heights: list[float]
    text: str


def histograms(arms: Sequence[ArmTraffic]) -> list[Histogram]:
    """Returns one histogram for each arm, all to the same scale."""
    shares = [_shares(arm.confidence) for arm in arms]
    most = max((share for one in shares for share in one), default=0)
    return [Histogram(one, [round(HEIGHT * share / most, 2) for share in one], _text(one)) for one in shares]


def _shares(counts: Sequence[int]) -> list[float]:
    """Returns the shares of the buckets; scores a hair above 1 belong to the last."""
    *inner, last, above = counts
    total = sum(counts)
    return [count / total for count in (*inner, last + above)] if total else []


def _text(shares: Sequence[float]) -> str:
    if not shares:
        return "no confidences yet"
    low, high = (_upto(shares, limit) for limit in (0.5, 0.9))
    parts = {"up to 0.5": low, "from 0.5 to 0.9": high - low, "above 0.9": 1 - high}
    return ", ".join(f"{percent(round(share, 3))} {where}" for where, share in parts.items())


def _upto(shares: Sequence[float], limit: float) -> float:
    return sum(shares[: CONFIDENCE_BUCKETS.index(limit) + 1])
