"""The upper limits of what is counted in histograms: by Prometheus, and in Redis for the console."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


def quantile(counts: Sequence[int], wanted: float) -> float | None:
    """Returns a quantile of seconds, interpolated within its bucket; ``None`` where nothing was counted.

    Args:
        counts: For each of ``SECONDS_BUCKETS`` how many were within it, and how many took longer.
        wanted: Which, from 0 to 1.
    """
    total = sum(counts)
    if not total:
        return None
    below = 0
    edges = (0.0, *SECONDS_BUCKETS, SECONDS_BUCKETS[-1])
    for index, (count, upto) in enumerate(zip(counts, accumulate(counts), strict=True)):
        if upto >= wanted * total and count:
            return edges[index] + (edges[index + 1] - edges[index]) * (wanted * total - below) / count
        below = upto
    return edges[-1]
