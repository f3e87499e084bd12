"""What holds for logins on every replica: how many may fail, and which sessions have ended."""

from __future__ import annotations

import logging

from rollout.errors import StoreUnavailableError
from rollout.keys import ended_session, failed_logins
from rollout.store import Redis, guard, report

# From one address; behind a proxy, that is the proxy's.
FAILURES_A_MINUTE = 30
MINUTE_S = 60

# KEYS: the failures of an address. Counts one, for a minute from the first.
COUNT = """
if redis.call('INCR', KEYS[1]) == 1 then
    redis.call('EXPIRE', KEYS[1], ARGV[1])
end
"""

logger = logging.getLogger("rollout.http.logins")


async def is_blocked(redis: Redis, address: str) -> bool:
    """Whether too many logins from an address failed within the last minute; without Redis, nobody knows."""
    try:
        async with guard():
            failures = int(await redis.get(failed_logins(address)) or 0)
    except StoreUnavailableError as error:
        report(error)
        return False
    return failures >= FAILURES_A_MINUTE


async def note_failure(redis: Redis, address: str) -> None:
    """Counts a login that failed, and says so in the log."""
    logger.warning("a login from %s failed: that is not a token of this service", address)
    try:
        async with guard():
            await redis.eval(COUNT, 1, failed_logins(address), MINUTE_S)
    except StoreUnavailableError as error:
        report(error)


async def end_session(redis: Redis, session_id: str, seconds: int) -> None:
    """Ends a session everywhere.

    Args:
        redis: Connection.
        session_id: Its ID.
        seconds: How long its cookie would be valid.

    Raises:
        StoreUnavailableError: If Redis does not answer; then the session has not ended.
    """
    async with guard():
        await redis.set(ended_session(session_id), 1, ex=seconds)


async def has_ended(redis: Redis, session_id: str) -> bool:
    """Whether somebody logged out of a session; without Redis, nobody knows, and it goes on."""
    try:
        async with guard():
            return bool(await redis.exists(ended_session(session_id)))
    except StoreUnavailableError as error:
        report(error)
        return False
