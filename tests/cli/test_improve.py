"""``rollout improve`` as a process: killed at any moment, two at once, and too little to learn from."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rollout.keys import Keys
from rollout.routing.splits import read_history
from rollout.store import Redis
from tests.commands import Started, start
from tests.conftest import BIN
from tests.improvement.sides import Sides, make_sides, review

IMPROVE = ("improve", "sides", "--seeds", "6", "--least", "30")
ALL = sorted(f"{rows} {seed}" for rows in (100, 140) for seed in range(6))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Path:
    return make_sides(tmp_path_factory.mktemp("improve"), valkey_url).folder


@pytest.fixture
def made(built: Path, tmp_path: Path, valkey_url: str) -> Sides:
    shutil.copytree(built, tmp_path / "sides")
    return Sides(tmp_path / "sides", valkey_url)


def begin(sides: Sides) -> Started:
    """Starts a run whose trainings take a while, to be killed."""
    return start(*IMPROVE, folder=sides.folder, environment=sides.environment | {"SLOW": "0.3"})


def watch(sides: Sides) -> subprocess.Popen[str]:
    """The same that looks again and again, as a process that starts from nothing."""
    return subprocess.Popen(
        [BIN / "rollout", *IMPROVE, "--watch", "1", "--recipe", "v1"],
        cwd=sides.folder,
        env=sides.environment | {"SLOW": "0.3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


async def test_too_few_labels_train_nothing(made: Sides, redis: Redis) -> None:
    assert "sides has no split" in made.improve(code=1)
    made.run("split", "set", "sides", "--champion", "v1", "--yes")
    await review(redis, range(5))
    said = json.loads(made.improve("--json"))
    assert said == {
        "outcome": "nothing",
        "why": "5 labels are new, and 30 are wanted: nothing is trained",
        "attempt": None,
    }
    assert made.run("improve", "sides", "--show") == "no version of sides was made from labels yet\n"


async def test_kills_at_any_moment_and_two_at_once_come_to_one_trial(made: Sides, redis: Redis) -> None:
    """Each kill costs at most the training that it hits."""
    made.run("split", "set", "sides", "--champion", "v1", "--yes")
    await review(redis, range(40))
    kills, chance = 0, random.Random(0)
    for trained in (1, 4, 7):
        process = begin(made)
        until(functools.partial(has_begun, made, trained), process)
        await asyncio.sleep(chance.random() * 0.5)  # at no particular moment
        process.kill()
        kills += 1
        await redis.delete(Keys("sides").improvement_lock)  # which would be gone in ten seconds
    first = begin(made)
    until(functools.partial(has_begun, made, 9), first)
    ended = begin(made).end(120)
    said = ended.stdout + ended.stderr
    assert (ended.returncode, said) == (0, "v1.1 is on trial, which is left alone\n") or (
        ended.returncode == 75 and "another run makes the next version of sides" in said
    )
    done = first.end(120)
    assert done.returncode == 0, done.stderr
    assert "sides:v1.1 is on trial" in done.stdout
    assert sorted(set(made.trainings())) == ALL
    assert len(made.trainings("begin")) <= len(ALL) + kills
    assert [split.challenger for split in await read_history(redis, "sides")] == [None, "v1.1"]


async def test_who_finds_another_at_work_says_so(made: Sides, redis: Redis) -> None:
    made.run("split", "set", "sides", "--champion", "v1", "--yes")
    await redis.set(Keys("sides").improvement_lock, "somebody who renews it")
    said = made.improve(code=75)
    assert said == "another run makes the next version of sides: nothing is done here\n"


async def test_it_watches_until_enough_labels_are_new(made: Sides, redis: Redis) -> None:
    made.run("split", "set", "sides", "--champion", "v1", "--yes")
    process = watch(made)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "0 labels are new, and 30 are wanted: nothing is trained\n"
        await review(redis, range(200, 240))
        for line in process.stdout:
            if "is on trial: `rollout verdict sides`" in line:
                break
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def has_begun(sides: Sides, trainings: int) -> bool:
    return len(sides.trainings("begin")) >= trainings


def until(is_so: Callable[[], bool], process: Started) -> None:
    give_up = time.monotonic() + 120
    while not is_so():
        assert process.poll() is None, process.end()
        assert time.monotonic() < give_up
        time.sleep(0.02)
