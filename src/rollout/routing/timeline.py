"""What a model answered over a day and a week, in windows that all workers add to, to be drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from rollout.buckets import SECONDS_BUCKETS, quantile
from rollout.keys import Keys
from rollout.store import Redis, guard

Span = Literal["day", "week"]


class Resolution(NamedTuple):
    """Windows of one length.

    Attributes:
        name: How keys name it.
        seconds: How long a window is.
        shown: How many are shown.
        kept_s: For how long one is kept after something was added to it.
    """

    name: str
    seconds: int
    shown: int
    kept_s: int


RESOLUTIONS: Mapping[Span, Resolution] = {
    "day": Resolution("5m", 300, 288, 25 * 3600),
    "week": Resolution("1h", 3600, 168, 8 * 86400),
}
TICK_S = 10  # workers tell often enough for it: what began just now is not taken for shorter
LATE = 0.95  # the quantile of the seconds that is shown


class Moment(NamedTuple):
    """What happened in one window.

    Attributes:
        at: When it began, seconds since 1970.
        lasted_s: How long it lasts, or has lasted until now.
        rows: Rows that were answered.
        requests: Requests that were answered, counted once for each arm of theirs.
        errors: Requests that failed for no fault of the caller's.
        reviewed: Rows that went to review.
        seconds: Requests by how long the engine took, for each of ``SECONDS_BUCKETS`` and for longer.
    """

    at: int
    lasted_s: float
    rows: int = 0
    requests: int = 0
    errors: int = 0
    reviewed: int = 0
    seconds: Sequence[int] = ()

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.lasted_s

    @property
    def late_s(self) -> float | None:
        """Seconds within which 95 of 100 requests were answered; ``None`` without requests."""
        return quantile(self.seconds, LATE)

    @property
    def error_share(self) -> float | None:
        """Share of the requests that failed; ``None`` without requests."""
        asked = self.requests + self.errors
        return self.errors / asked if asked else None

    @property
    def review_share(self) -> float | None:
        """Share of the rows that went to review; ``None`` without rows."""
        return min(self.reviewed / self.rows, 1.0) if self.rows else None


def windows(keys: Keys, now: float) -> Iterator[tuple[str, int]]:
    """Yields the key of the window of each length that a time is in, and for how many seconds it is kept."""
    for one in RESOLUTIONS.values():
        yield keys.timeline(one.name, int(now) // one.seconds * one.seconds), one.kept_s


def is_shown(kind: str) -> bool:
    """Whether what is counted of an arm is in the timeline, too, for all arms together."""
    return kind in {"predictions", "seconds"}


async def read_timeline(redis: Redis, model: str, span: Span) -> list[Moment]:
    """Returns the windows of a day or a week, oldest first; the last one is not over yet.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    length = RESOLUTIONS[span]
    now = time.time()
    last = int(now) // length.seconds * length.seconds
    starts = range(last - (length.shown - 1) * length.seconds, last + 1, length.seconds)
    pipeline = redis.pipeline(transaction=False)
    for start in starts:
        pipeline.hgetall(Keys(model).timeline(length.name, start))
    async with guard():
        found: Sequence[dict[bytes, bytes]] = await pipeline.execute()
    return [
        _moment(start, min(length.seconds, max(now - start, TICK_S)), counts)
        for start, counts in zip(starts, found, strict=True)
    ]


def _moment(at: int, lasted_s: float, counts: Mapping[bytes, bytes]) -> Moment:
    seconds = [int(counts.get(b"seconds.%d" % bucket, 0)) for bucket in range(len(SECONDS_BUCKETS) + 1)]
    rows, errors, reviewed = (int(counts.get(name, 0)) for name in (b"predictions", b"errors", b"reviewed"))
    return Moment(at, lasted_s, rows, sum(seconds), errors, reviewed, seconds)
