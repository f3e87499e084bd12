"""``rollout drift``: sentences for people, JSON for programs, an exit code for pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.routing.drift import DriftView, keep_drift
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import Redis
from tests.cli.test_split import Command
from tests.routing.drifts import arm_drift, view


@pytest.fixture
def drift(tmp_path: Path, valkey_url: str, redis: Redis) -> Command:
    return Command(tmp_path, valkey_url, "drift")


async def test_the_exit_code_says_whether_rows_moved(drift: Command, redis: Redis) -> None:
    drift("digits", code=1)
    assert "digits has neither a split nor review items" in drift.errors
    await write_split(redis, "digits", Split(champion="v1"))
    assert "too few: no worker has looked yet" in drift("digits", code=75)
    await keep_drift(redis, view(arm_drift(1000)))
    assert "quiet: nothing speaks for a change in 1,000 rows" in drift("digits")
    await keep_drift(redis, view(arm_drift(1000, 30), bare=("digits:v2",)))
    printed = " ".join(drift("digits", code=70).split())
    assert "drifted: passenger.age moved" in printed
    assert "champion v1: 1,000 rows" in printed
    assert "expected to be right on" in printed
    assert "note digits:v2 was packed without a baseline" in printed


async def test_as_json_it_is_what_the_service_answers(drift: Command, redis: Redis) -> None:
    await write_split(redis, "digits", Split(champion="v1"))
    await keep_drift(redis, view(arm_drift(1000, 30)))
    found = drift.json("digits", code=70)
    assert set(found) == set(DriftView.__struct_fields__)
    age = next(one for one in found["arms"][0]["found"]["features"] if one["feature"] == "passenger.age")
    assert age["moved"]
    assert age["before"] == pytest.approx(40, abs=1)
    assert age["now"] > 60
