"""The splits in Redis: compare-and-set on the revision, and an append-only history."""

from __future__ import annotations

import msgspec

from rollout.clock import utc_now
from rollout.errors import SplitConflictError
from rollout.routing.split import Split
from rollout.store import Keys, Redis, guard

# KEYS: split, history. ARGV: expected revision, new split. Returns the revision found.
PUT = """
local current = redis.call('GET', KEYS[1])
local revision = current and cjson.decode(current)['revision'] or 0
if revision == tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[2])
    redis.call('RPUSH', KEYS[2], ARGV[2])
end
return revision
"""


async def read_split(redis: Redis, model: str) -> Split | None:
    """Returns a model's split, or ``None`` where nobody has set one.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        data = await redis.get(Keys(model).split)
    return None if data is None else msgspec.json.decode(data, type=Split)


async def write_split(redis: Redis, model: str, split: Split) -> Split:
    """Replaces the split that has ``split.revision`` by ``split`` with the next revision.

    Args:
        redis: Connection.
        model: The model.
        split: The new split; its revision is the one that the change is based on, 0 for the first.

    Returns:
        The split as it was stored, with its revision and time.

    Raises:
        SplitConflictError: If somebody else changed it first.
        StoreUnavailableError: If Redis does not answer.
    """
    stored = msgspec.structs.replace(
        split,
        revision=split.revision + 1,
        at=utc_now(),
    )
    keys = Keys(model)
    async with guard():
        found = await redis.eval(
            PUT, 2, keys.split, keys.split_history, str(split.revision), msgspec.json.encode(stored)
        )
    if found != split.revision:
        raise SplitConflictError(
            f"the split of {model} is at revision {found}, not {split.revision}: read it again, then change it"
        )
    return stored


async def read_history(redis: Redis, model: str, limit: int = 1000) -> list[Split]:
    """Returns the latest changes of a model's split, oldest first.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        entries = await redis.lrange(Keys(model).split_history, -limit, -1)
    return [msgspec.json.decode(entry, type=Split) for entry in entries]
