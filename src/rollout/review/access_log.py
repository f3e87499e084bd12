"""The access log: who saw which review items. Nobody sees an item without being noted first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from rollout.keys import Keys
from rollout.review.policy import DAY_S
from rollout.review.state import iso
from rollout.store import Redis, guard, run_script

MOST_ENTRIES = 100_000
KEPT_DAYS = 90
IDS_AN_ENTRY = 200
PAGE = 1000

# KEYS: log. ARGV: most entries, seconds to keep them, who, role, how, then the IDs of each entry.
RECORD = """
for i = 6, #ARGV do
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*',
        'who', ARGV[3], 'role', ARGV[4], 'did', ARGV[5], 'ids', ARGV[i])
end
local oldest = redis.call('TIME')[1] - ARGV[2]
redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', oldest * 1000))
"""


class AccessEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody saw items. Their IDs name no client, so that forgetting one leaves the log as it is.

    Attributes:
        at: When, ISO 8601 in UTC.
        who: The reviewer's name, or where none was given what tells their token from others.
        role: The role of the token.
        did: How: ``claim``, ``explain``, ``undo``, ``list``, ``show`` or ``export``.
        ids: The items.
    """

    at: str
    who: str
    role: str
    did: str
    ids: list[str]


async def record_access(redis: Redis, model: str, who: str, role: str, did: str, ids: Sequence[str]) -> None:
    """Notes that somebody is about to see items: call it first, and show nothing if it fails.

    Raises:
        StoreUnavailableError: If Redis does not answer; what is not noted must not be seen.
    """
    if not ids:
        return
    groups = [
        msgspec.json.encode(ids[start : start + IDS_AN_ENTRY]) for start in range(0, len(ids), IDS_AN_ENTRY)
    ]
    kept = (MOST_ENTRIES, KEPT_DAYS * DAY_S)
    await run_script(redis, RECORD, [Keys(model).access], *kept, who, role, did, *groups)


async def read_access(redis: Redis, model: str) -> AsyncIterator[AccessEntry]:
    """Yields the log of a model, oldest entries first.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    first = "-"
    while True:
        async with guard():
            entries: Any = await redis.xrange(Keys(model).access, first, "+", PAGE)
        for entry_id, entry in entries:
            yield AccessEntry(
                at=iso(int(entry_id.partition(b"-")[0])),
                who=entry[b"who"].decode(),
                role=entry[b"role"].decode(),
                did=entry[b"did"].decode(),
                ids=msgspec.json.decode(entry[b"ids"]),
            )
        if len(entries) < PAGE:
            return
        first = f"({entries[-1][0].decode()}"
