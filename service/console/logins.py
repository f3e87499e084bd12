"""What holds for logins on every replica: how many may fail, and which sessions have ended."""

from __future__ import annotations

import logging

from rollout.errors import StoreUnavailableError
from rollout.keys import ended_session, failed_logins
from rollout.store import Redis, guard, report

# From one address; behind a proxy, that is the proxy's.
FAILURES_A_MINUTE = 30
MINUTE_S = 60

# KEYS: the failures of an address. Counts one, for a minute from the first, and returns how many there are.
COUNT = """
local failures = redis.call('INCR', KEYS[1])
if failures == 1 then
    redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return failures
"""
# KEYS: the failures of an address. Takes one back.
TAKE_BACK = """
local failures = tonumber(redis.call('GET', KEYS[1]) or 0)
if failures > 0 then
    redis.call('SET', KEYS[1], failures - 1, 'KEEPTTL')
end
"""

logger = logging.getLogger("rollout.http.logins")


async def may_try(redis: Redis, address: str) -> bool:
    """Whether another login from an address may be tried; without Redis, nobody knows, and it may.

    It counts as failed until ``note_success``: of many at once, no more are tried than one after the other.
    """
    try:
        async with guard():
            failures = int(await redis.eval(COUNT, 1, failed_logins(address), MINUTE_S))
    except StoreUnavailableError as error:
        report(error)
        return True
    return failures <= FAILURES_A_MINUTE


async def note_success(redis: Redis, address: str) -> None:
    """Takes back that a login counts as failed."""
    try:
        async with guard():
            await redis.eval(TAKE_BACK, 1, failed_logins(address))
    except StoreUnavailableError as error:
        report(error)


def note_failure(address: str) -> None:
    """Says in the log that a login failed."""
    logger.warning("a login from %s failed: that is not a token of this service", address)


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
