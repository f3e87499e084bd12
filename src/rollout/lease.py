"""Leases: of all workers, one does what only one is to do; where it ends, another takes over."""

from __future__ import annotations

import secrets

from rollout.store import Redis, guard

# KEYS: lock. ARGV: owner, milliseconds. Returns 1 where the lock is the owner's now.
HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS: lock. ARGV: owner.
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
"""


class Lease:
    """A lock that ends by itself. Who holds it may have lost it meanwhile: what is done must bear that.

    Args:
        redis: Connection.
        key: The lock.
        seconds: For how long it is held unless it is renewed.

    Attributes:
        owner: What the lock says while it is held: who writes compares it.
    """

    def __init__(self, redis: Redis, key: str, seconds: float) -> None:
        self._redis = redis
        self._key = key
        self._seconds = seconds
        self.owner = secrets.token_hex(8)

    async def hold(self) -> bool:
        """Takes or renews it; returns whether it is ours.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """
        async with guard():
            return bool(await self._redis.eval(HOLD, 1, self._key, self.owner, round(self._seconds * 1000)))

    async def release(self) -> None:
        """Gives it back, if it is ours.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """
        async with guard():
            await self._redis.eval(RELEASE, 1, self._key, self.owner)
