"""``rollout split rollback``: the kill switch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from rollout.cli import cli
from rollout.errors import SplitConflictError
from rollout.routing import changes
from rollout.routing.split import Split
from rollout.routing.splits import read_quarantine, read_split, write_split
from rollout.store import Redis
from tests.cli.test_split import TRIAL, Command


@pytest.fixture
def split(bundles: str, redis: Redis, valkey_url: str, tmp_path: Path) -> Command:
    return Command(tmp_path, valkey_url)


async def test_a_rollback_ends_the_trial_and_the_version_stays_out_until_it_is_released(
    split: Command, redis: Redis
) -> None:
    split(*TRIAL)
    digest = split.json("show", "digits")["digests"]["v2"]
    assert split("rollback", "digits", "--why", "wrong about sevens") == "digits is at revision 2\n"
    assert "challenger  v2 → –" in split.errors
    assert "Moves about 5 % of the clients from v2 to v1, and none back." in split.errors
    assert split.errors.endswith(
        "digits:v2 is in quarantine: only `rollout split set … --release` brings it back\n"
    )
    assert f"v2 ({digest[:12]})" in split("show", "digits")
    split(*TRIAL, code=1)
    assert "digits:v2 was rolled back by ada" in split.errors
    assert "wrong about sevens" in split.errors
    split(*TRIAL, "--release")
    assert "v2 leaves the quarantine." in split.errors
    assert not await read_quarantine(redis, "digits")
    assert split.json("show", "digits")["challenger"] == "v2"


async def test_a_rollback_after_a_promotion_brings_the_champion_before_it_back(split: Command) -> None:
    split(*TRIAL)
    split("promote", "digits", "--yes")
    assert "champion    v1 → v2" in split.errors
    assert "Moves about 95 % of the clients from v1 to v2, and none back." in split.errors
    assert "v1, which a rollback of v2 goes back to" in split("show", "digits")
    split("rollback", "digits", "--why", "slow")
    assert "Moves everybody from v2 to v1." in split.errors
    assert split.json("show", "digits")["champion"] == "v1"
    split("rollback", "digits", "--why", "again", code=1)


@pytest.mark.parametrize(
    ("meanwhile", "times", "is_done"),
    [
        (lambda current: changes.ramp(current, current.share + 0.1), 2, True),
        (lambda current: changes.ramp(current, current.share / 2), 99, False),
        (changes.promote, 1, False),
        (lambda current: changes.rollback(current)[0], 1, False),
        (lambda current: replace(current, challenger="v3"), 1, False),
    ],
    ids=["ramps", "somebody who never ends", "promotion", "rollback", "another trial"],
)
async def test_a_rollback_outruns_changes_that_leave_its_versions(
    split: Command,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[Split], Split],
    times: int,
    is_done: bool,
) -> None:
    split(*TRIAL)
    left = times

    async def be_late(redis: Redis, model: str, wanted: Split, **options: Any) -> Split:
        nonlocal left
        if left:
            left -= 1
            current = await read_split(redis, model)
            assert current is not None
            await write_split(redis, model, meanwhile(current))
        return await write_split(redis, model, wanted, **options)

    monkeypatch.setattr("rollout.routing.control.write_split", be_late)
    arguments = ["split", "rollback", "digits", "--why", "wrong about sevens"]
    result = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=split.environment)
    stored = await read_split(redis, "digits")
    assert stored is not None
    if is_done:
        assert result.exception is None
        assert "Moves about 25 % of the clients from v2 to v1, and none back." in result.output
        assert (stored.revision, stored.champion, stored.challenger) == (4, "v1", None)
        assert [record.version for record in (await read_quarantine(redis, "digits")).values()] == ["v2"]
    else:
        assert isinstance(result.exception, SplitConflictError)
        assert stored.why != "wrong about sevens"
        assert not await read_quarantine(redis, "digits")
