"""What this worker counted of a model beside its arms: requests that failed, and rows that went to review."""

from __future__ import annotations

from collections.abc import Iterator

from rollout import metrics
from rollout.errors import HTTP_ERRORS
from rollout.review.item import OF_TRAFFIC

# What the service answers for no fault of the caller's.
OURS = [error.type for error in HTTP_ERRORS if error.status >= 500]


class OwnCounts:
    """Reads them where Prometheus's client has them, of this process alone.

    Args:
        model: The model.
    """

    def __init__(self, model: str) -> None:
        kept = ("queued", "deferred")
        self._counters = {
            "errors": [metrics.ERRORS.labels(model, kind) for kind in OURS],
            "reviewed": [metrics.REVIEW_ITEMS.labels(model, why, fate) for why in OF_TRAFFIC for fate in kept],
        }
        self._before = self._now()

    def take(self) -> Iterator[tuple[str, int]]:
        """Yields names and how much was counted since the last time."""
        before, self._before = self._before, self._now()
        for name, count in self._before.items():
            if count > before[name]:
                yield name, count - before[name]

    def _now(self) -> dict[str, int]:
        return {
            name: round(sum(counter._value.get() for counter in counters))
            for name, counters in self._counters.items()
        }
