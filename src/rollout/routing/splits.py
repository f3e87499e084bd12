"""The splits in Redis: compare-and-set on the revision, an append-only history, and the quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from rollout.clock import utc_now
from rollout.errors import SplitConflictError, StoredValueError
from rollout.keys import Keys
from rollout.routing.split import Split
from rollout.store import Redis, decode_stored, guard, report_left_out, run_script, strange_value

# KEYS: split, history, quarantine. ARGV: expected revision, new split, how many digests are released, these, then
# digests and records to be quarantined. Returns the revision found.
PUT = """
local current = redis.call('GET', KEYS[1])
local revision = current and cjson.decode(current)['revision'] or 0
if revision == tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[2])
    redis.call('RPUSH', KEYS[2], ARGV[2])
    local released = tonumber(ARGV[3])
    for i = 4, 3 + released do
        redis.call('HDEL', KEYS[3], ARGV[i])
    end
    for i = 4 + released, #ARGV, 2 do
        redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
    end
end
return revision
"""
NOBODY: Mapping[str, str] = {}


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """Why a bundle cannot go on trial.

    Attributes:
        version: Its version.
        by: Who rolled it back.
        at: When, ISO 8601 in UTC.
        why: What for.
    """

    version: str
    by: str
    at: str
    why: str


async def read_split(redis: Redis, model: str) -> Split | None:
    """Returns a model's split, or ``None`` where none was set, or it was removed.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    latest = await read_latest(redis, model)
    return None if latest is None or latest.removed else latest


async def read_latest(redis: Redis, model: str) -> Split | None:
    """Returns what the last change of a model's split made, its removal included.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        data = await redis.get(Keys(model).split)
    return None if data is None else decode_stored(data, Split, Keys(model).split)


async def write_split(
    redis: Redis,
    model: str,
    split: Split,
    *,
    quarantine: Mapping[str, str] = NOBODY,
    release: Sequence[str] = (),
) -> Split:
    """Replaces the split that has ``split.revision`` by ``split`` with the next revision.

    Args:
        redis: Connection.
        model: The model.
        split: The new split; its revision is the one that the change is based on, 0 for the first.
        quarantine: Versions that must not come back, by digest.
        release: Digests that may come back.

    Returns:
        The split as it was stored, with its revision and time.

    Raises:
        SplitConflictError: If somebody else changed it first.
        StoreUnavailableError: If Redis does not answer.
    """
    stored = msgspec.structs.replace(split, revision=split.revision + 1, at=utc_now())
    arguments: list[str | bytes | int] = [split.revision, msgspec.json.encode(stored), len(release), *release]
    for digest, version in quarantine.items():
        record = Quarantined(version=version, by=stored.by, at=stored.at, why=stored.why)
        arguments += [digest, msgspec.json.encode(record)]
    keys = Keys(model)
    found = await run_script(redis, PUT, [keys.split, keys.split_history, keys.quarantine], *arguments)
    if found != split.revision:
        raise SplitConflictError(
            f"the split of {model} is at revision {found}, not {split.revision}: read it again, then change it"
        )
    return stored


async def read_models(redis: Redis) -> list[str]:
    """Returns the names of all models that have a split, or had one.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    before, after = Keys("*").split.split("*")
    async with guard():
        keys = [key async for key in redis.scan_iter(match=f"{before}*{after}", count=1000)]
    names = set()
    for key in keys:
        try:
            names.add(key.decode()[len(before) : -len(after)])
        except UnicodeDecodeError as error:  # which no model is called
            report_left_out(strange_value(repr(key), error))
    return sorted(names)


async def read_history(redis: Redis, model: str, limit: int = 1000) -> list[Split]:
    """Returns the latest changes of a model's split, oldest first.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        entries = await redis.lrange(Keys(model).split_history, -limit, -1)
    return [decode_stored(entry, Split, Keys(model).split_history) for entry in entries]


async def read_quarantine(redis: Redis, model: str) -> Mapping[str, Quarantined]:
    """Returns the bundles that were rolled back, by digest.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        found: dict[bytes, bytes] = await redis.hgetall(Keys(model).quarantine)  # type: ignore[assignment]
    return {digest.decode(errors="replace"): _quarantined(data, model) for digest, data in found.items()}


def _quarantined(data: bytes, model: str) -> Quarantined:
    """Returns why a bundle is in quarantine; it stays there where nobody can read why."""
    try:
        return decode_stored(data, Quarantined, Keys(model).quarantine)
    except StoredValueError as error:
        return Quarantined(version="", by="", at="", why=error.detail)
