"""The split in Redis: compare-and-set, a history that only grows, and a quarantine that follows both."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rollout.errors import SplitConflictError
from rollout.routing.split import Rule, Split
from rollout.routing.split_cache import FOLDER, cache_split, cached_splits
from rollout.routing.splits import read_history, read_quarantine, read_split, write_split
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
    with pytest.raises(SplitConflictError, match="at revision 2, not 1") as caught:
        await write_split(redis, "digits", msgspec.structs.replace(first, champion="v3"))
    assert caught.value.status == 412
    current = await read_split(redis, "digits")
    assert current is not None
    assert current.champion == "v2"
    assert [split.champion for split in await read_history(redis, "digits")] == ["v1", "v2"]


async def test_models_are_independent(redis: Redis) -> None:
    await write_split(redis, "a", Split(champion="v1"))
    assert await read_split(redis, "b") is None
    assert await read_history(redis, "b") == []


async def test_everything_in_a_split_comes_back_as_it_was(redis: Redis) -> None:
    split = Split(
        champion="v1",
        challenger="v2",
        share=0.1 + 0.2,
        experiment="prüfung-😀",
        shadow=0.25,
        rules=(Rule(arm="challenger", clients=("ada", "tester-*")), Rule(arm="champion", segments=("beta",))),
        labels={"v2": {"0": "zero"}},
        previous="v0",
        digests={"v1": "a" * 64},
        by="ada",
        why='"quoted", and more\n',
    )
    stored = await write_split(redis, "digits", split)
    assert stored == msgspec.structs.replace(split, revision=1, at=stored.at)
    assert await read_split(redis, "digits") == stored
    assert stored.share == 0.3


async def test_the_history_gives_the_latest(redis: Redis) -> None:
    split = Split(champion="v0")
    for number in range(1, 6):
        split = await write_split(redis, "digits", msgspec.structs.replace(split, champion=f"v{number}"))
    assert [one.revision for one in await read_history(redis, "digits", 2)] == [4, 5]


async def test_a_change_quarantines_and_releases_in_the_same_step(redis: Redis) -> None:
    first = await write_split(redis, "digits", Split(champion="v1", by="ada", why="w"), quarantine={"a": "v2"})
    held = await read_quarantine(redis, "digits")
    assert {digest: (one.version, one.by, one.at, one.why) for digest, one in held.items()} == {
        "a": ("v2", "ada", first.at, "w")
    }
    second = await write_split(redis, "digits", first, quarantine={"b": "v3", "c": "v4"}, release=["a", "other"])
    assert (await read_quarantine(redis, "digits")).keys() == {"b", "c"}
    with pytest.raises(SplitConflictError):
        await write_split(redis, "digits", first, quarantine={"d": "v5"}, release=["b", "c"])
    assert (await read_quarantine(redis, "digits")).keys() == {"b", "c"}
    assert len(await read_history(redis, "digits")) == second.revision == 2


def test_the_last_splits_seen_are_on_disk(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert cached_splits(home) == {}
    cache_split(home, "digits", Split(champion="v1", revision=1))
    latest = Split(champion="v1", challenger="v2", share=0.3, experiment="e", revision=2)
    cache_split(home, "digits", latest)
    cache_split(home, "languages", Split(champion="v1"))
    assert cached_splits(home) == {"digits": latest, "languages": Split(champion="v1")}
    assert len(list((home / FOLDER).iterdir())) == 2, "no drafts are left"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"champion": 1}', b'{"champion": "v1", "share": 0.1}'])
def test_a_split_on_disk_that_is_none_counts_as_never_seen(tmp_path: Path, text: bytes) -> None:
    cache_split(tmp_path, "languages", Split(champion="v1"))
    (tmp_path / FOLDER / "digits.json").write_bytes(text)
    assert cached_splits(tmp_path).keys() == {"languages"}
