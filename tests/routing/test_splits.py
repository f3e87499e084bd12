"""The split in Redis: compare-and-set, and a history that only grows."""

from __future__ import annotations

import msgspec
import pytest

from rollout.errors import SplitConflictError
from rollout.routing.split import Split
from rollout.routing.splits import read_history, read_split, write_split
from rollout.store import Redis


async def test_the_first_split_has_revision_one(redis: Redis) -> None:
    assert await read_split(redis, "digits") is None
    stored = await write_split(redis, "digits", Split(champion="v1", by="ada", why="start"))
    assert stored.revision == 1
    assert stored.at.endswith("Z")
    assert await read_split(redis, "digits") == stored


async def test_the_second_of_two_changes_loses(redis: Redis) -> None:
    first = await write_split(redis, "digits", Split(champion="v1"))
    await write_split(redis, "digits", msgspec.structs.replace(first, champion="v2"))
    with pytest.raises(SplitConflictError, match="at revision 2, not 1"):
        await write_split(redis, "digits", msgspec.structs.replace(first, champion="v3"))
    current = await read_split(redis, "digits")
    assert current is not None
    assert current.champion == "v2"
    assert [split.champion for split in await read_history(redis, "digits")] == ["v1", "v2"]


async def test_models_are_independent(redis: Redis) -> None:
    await write_split(redis, "a", Split(champion="v1"))
    assert await read_split(redis, "b") is None
    assert await read_history(redis, "b") == []
