"""Histograms as bars, and in words: of confidences, and of two samples side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from rollout.buckets import CONFIDENCE_BUCKETS
from rollout.routing.traffic import ArmTraffic
from rollout.words import percent

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


class Bin(NamedTuple):
    """One bin of two histograms.

    Attributes:
        label: What lies in it.
        expected: Share of the one sample, and the height of its bar up to ``HEIGHT``.
        found: The same of the other.
    """

    label: str
    expected: tuple[float, float]
    found: tuple[float, float]


def paired(labels: Sequence[str], expected: Sequence[float], found: Sequence[float]) -> list[Bin]:
    """Returns two histograms side by side, to the same scale; bins that are empty in both are left out.

    Args:
        labels: What lies in each bin.
        expected: Shares of the one sample.
        found: Shares of the other.
    """
    most = max((*expected, *found), default=0) or 1.0
    return [
        Bin(label, (one, round(HEIGHT * one / most, 2)), (other, round(HEIGHT * other / most, 2)))
        for label, one, other in zip(labels, expected, found, strict=True)
        if one or other
    ]


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
