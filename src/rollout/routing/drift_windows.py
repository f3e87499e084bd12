"""What live rows looked like, in windows of time: sums in Redis that all replicas add to, and no row."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.judge.drift import Window
from rollout.keys import Keys
from rollout.routing.assignment import Arm
from rollout.store import Redis, guard

MINUTE, FIVE, HOUR, DAY = 60, 300, 3600, 86400
FLUSH_KEPT_S = 600
# So long after its end a window may still grow, unless a worker was cut off from Redis for longer:
SETTLED_S = 120
# for its sake all are read again after so long, so many at once that the event loop hardly waits.
AGAIN_S = 3600
AT_ONCE = 16

# KEYS: the flush, then each window. ARGV: seconds to remember the flush, then for each window the seconds to keep
# it, how many sums are added, and for each its place and what is added. A flush that comes again adds nothing.
ADD = """
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', ARGV[1]) then
    return 0
end
local at = 2
for i = 2, #KEYS do
    local last = at + 1 + 2 * ARGV[at + 1]
    for place = at + 2, last, 2 do
        redis.call('HINCRBYFLOAT', KEYS[i], ARGV[place], ARGV[place + 1])
    end
    redis.call('EXPIRE', KEYS[i], ARGV[at])
    at = last + 1
end
return 1
"""

Sums = NDArray[np.float64]


class Resolution(NamedTuple):
    """Windows of one length.

    Attributes:
        name: In the names of keys.
        seconds: How long one is.
        kept_s: How long it is kept.
    """

    name: str
    seconds: int
    kept_s: int


RESOLUTIONS = (
    Resolution("minute", MINUTE, HOUR),
    Resolution("five", FIVE, 4 * HOUR),
    Resolution("hour", HOUR, 3 * DAY),
    Resolution("day", DAY, 36 * DAY),
)
KEPT_S = RESOLUTIONS[-1].kept_s


class Place(NamedTuple):
    """Where sums belong.

    Attributes:
        digest: Of the bundle that answered.
        arm: The clients' arm.
        resolution: The length of the window.
        start: When the window begins, seconds since 1970.
    """

    digest: str
    arm: Arm
    resolution: Resolution
    start: int


class Flush(NamedTuple):
    """What a worker adds at once; sent again it changes nothing.

    Attributes:
        id: Its own.
        sums: By where they belong.
    """

    id: str
    sums: Mapping[Place, Sums]

    @classmethod
    def of(cls, sums: Mapping[Place, Sums]) -> Flush:
        """Returns one with a new ID."""
        return cls(secrets.token_hex(8), sums)


def places_of(digest: str, arm: Arm, at: float) -> list[Place]:
    """Returns the windows that a moment belongs to, one of each length."""
    return [Place(digest, arm, one, int(at) // one.seconds * one.seconds) for one in RESOLUTIONS]


async def add_sums(redis: Redis, model: str, flush: Flush) -> None:
    """Adds what a worker saw, all of it or nothing, and once.

    Raises:
        StoreUnavailableError: If Redis does not answer; the same flush may be sent again within ten minutes.
    """
    names = Keys(model)
    keys = [names.drift_flush(flush.id)]
    arguments: list[str | int] = [FLUSH_KEPT_S]
    for (digest, arm, resolution, start), sums in flush.sums.items():
        (filled,) = np.nonzero(sums)
        keys.append(names.drift(digest, arm, resolution.name, start))
        arguments += [resolution.kept_s, len(filled)]
        for place, amount in zip(filled.tolist(), sums[filled].tolist(), strict=True):
            arguments += [place, repr(amount)]
    async with guard():
        await redis.eval(ADD, len(keys), *keys, *arguments)


class Windows:
    """What was seen of a bundle and an arm. Windows that are over are not read again at each look.

    Args:
        redis: Connection.
        model: The model.
        digest: Of the bundle.
        arm: The arm.
        size: How many sums there are.
    """

    def __init__(self, redis: Redis, model: str, digest: str, arm: Arm, size: int) -> None:
        self._redis = redis
        self._keys = Keys(model)
        self._digest, self._arm, self._size = digest, arm, size
        self._known: dict[tuple[Resolution, int], tuple[float, Sums | None]] = {}

    async def read(self, now: float) -> list[Window]:
        """Returns the windows, oldest first, each row in one of them.

        The last quarter of an hour or so comes in minutes, the two or three hours before in windows of five, the
        one or two days before in hours, the rest of the last 35 days in days. A change shows as soon as its rows
        are not in one window with many from before.

        Args:
            now: Seconds since 1970.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """
        wanted = _cover(now)
        self._known = {one: self._known[one] for one in wanted if one in self._known}
        asked = [one for one in wanted if not self._holds(one, now)]
        for begin in range(0, len(asked), AT_ONCE):
            await self._ask(asked[begin : begin + AT_ONCE], now)
        return [
            Window(start, resolution.seconds, sums)
            for resolution, start in wanted
            if (sums := self._known[resolution, start][1]) is not None
        ]

    def _holds(self, one: tuple[Resolution, int], now: float) -> bool:
        """Whether a window was read after it was over, and not long ago: a worker may have been cut off."""
        if one not in self._known:
            return False
        resolution, start = one
        at = self._known[one][0]
        return at > start + resolution.seconds + SETTLED_S and now - at < AGAIN_S

    async def _ask(self, wanted: Sequence[tuple[Resolution, int]], now: float) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for resolution, start in wanted:
            pipe.hgetall(self._keys.drift(self._digest, self._arm, resolution.name, start))
        async with guard():
            found: Sequence[dict[bytes, bytes]] = await pipe.execute()
        for one, stored in zip(wanted, found, strict=True):
            self._known[one] = now, _vector(stored, self._size) if stored else None


def _cover(now: float) -> list[tuple[Resolution, int]]:
    """Returns windows that cover the last 35 days, oldest first, none twice."""
    minute, five, hour, day = RESOLUTIONS
    minutes_from = int(now) // FIVE * FIVE - 2 * FIVE
    fives_from = minutes_from // HOUR * HOUR - 2 * HOUR
    hours_from = fives_from // DAY * DAY - DAY
    starts = (
        (day, range(hours_from - 33 * DAY, hours_from, DAY)),
        (hour, range(hours_from, fives_from, HOUR)),
        (five, range(fives_from, minutes_from, FIVE)),
        (minute, range(minutes_from, int(now) + 1, MINUTE)),
    )
    return [(resolution, start) for resolution, one in starts for start in one]


def _vector(stored: Mapping[bytes, bytes], size: int) -> Sums:
    sums = np.zeros(size)
    for place, amount in stored.items():
        if int(place) < size:
            sums[int(place)] = float(amount)
    return sums
