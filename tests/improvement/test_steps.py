"""Improving step by step: killed at each boundary, refused, overtaken by people."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rollout.bundle.manifest import Manifest, read_manifest
from rollout.heads import Classification
from rollout.keys import Keys
from rollout.routing.improvement import Improvement, read_improvement
from rollout.routing.splits import read_history, read_split
from rollout.store import Redis
from tests import commands
from tests.cli.test_gate_and_sign import write_keys
from tests.improvement.sides import RECIPE, Sides, make_sides, review

# Packs what somebody would have for what was trained on the labels of an attempt.
LIE = """
import numpy as np, torch
from rollout import Classification, Labelled, Tensor, pack

point = np.random.default_rng(5).normal(size=(400, 2)).astype(np.float32)
part = Labelled({{"point": point}}, (point[:, 0] > 0).astype(np.int64))
module = torch.nn.Linear(2, 2)
with torch.no_grad():
    module.weight.copy_(torch.tensor([[-5.0, 0.0], [5.0, 0.0]]))
    module.bias.zero_()
pack(
    module.eval(), name="sides", version="v1.1", inputs={{"point": Tensor(shape=(2,), dtype="float32")}},
    task=Classification(labels=["left", "right"], risk=0.1), calibration=part, evaluation=part,
    lineage={{"again": "v1", "data": {{"labels": {{"files": {exports}}}}}}},
)
"""
STEPS = ("labels", "training", "gate", "bundle", "trial")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Path:
    folder = tmp_path_factory.mktemp("improving") / "sides"
    make_sides(folder, valkey_url)
    return folder


@pytest.fixture
async def sides(made: Path, tmp_path: Path, valkey_url: str, redis: Redis) -> Sides:
    folder = tmp_path / "sides"
    shutil.copytree(made, folder)
    sides = Sides(folder, valkey_url)
    sides.run("split", "set", "sides", "--champion", "v1")
    return sides


def manifest_of(sides: Sides, version: str) -> Manifest:
    return read_manifest(sides.folder / "store" / "models" / "sides" / version)


async def test_labels_become_a_version_on_trial(sides: Sides, redis: Redis) -> None:
    await review(redis, range(40))
    said = sides.improve()
    assert "sides:v1.1 is on trial\n" in said
    assert "gate: better" in said
    split = await read_split(redis, "sides")
    assert split is not None
    assert (split.champion, split.challenger, split.share) == ("v1", "v1.1", 0.01)
    assert split.policy is not None
    assert split.policy.aim == "better"
    assert (split.by, split.why) == ("ada", "v1 trained again on 40 new labels")
    manifest = manifest_of(sides, "v1.1")
    assert manifest.gate is not None
    assert manifest.lineage["again"] == "v1"
    assert sorted(sides.trainings()) == sorted(f"{rows} {seed}" for rows in (100, 140) for seed in range(6))
    report = sides.home / "improve" / "sides" / "v1.1.txt"
    assert "done     gate" in report.read_text()
    assert "sides:v1.1 is on trial\n" in sides.run("improve", "sides", "--show")

    assert "v1.1 is on trial, which is left alone" in sides.improve()
    said = sides.run("reproduce", "sides:v1.1", "--seeds", "2")
    assert said.startswith("identical")
    assert "data differs" not in said

    sides.run("split", "promote", "sides", "--yes")
    assert "0 labels are new, and 30 are wanted: nothing is trained" in sides.improve()
    await review(redis, range(100, 140))
    assert "sides:v1.2 is on trial" in sides.improve("--shadow", "20%", LEARNT="0.1")
    split = await read_split(redis, "sides")
    assert split is not None
    assert (split.champion, split.challenger, split.share, split.shadow) == ("v1.1", "v1.2", 0, 0.2)
    assert split.policy is not None
    assert split.policy.compare == "disagreements"
    assert len(manifest_of(sides, "v1.2").lineage["data"]["labels"]["files"]) == 2
    assert manifest_of(sides, "v1.2").lineage["data"]["labels"]["used"] == 80


async def test_a_kill_at_any_boundary_loses_nothing_and_repeats_nothing(sides: Sides, redis: Redis) -> None:
    await review(redis, range(40))
    for step in STEPS:
        for moment in ("before", "after"):
            assert improve_until(sides, step, moment) == -signal.SIGKILL
            await redis.delete(Keys("sides").improvement_lock)  # which would be gone in ten seconds
    said = sides.improve()
    assert "sides:v1.1 is on trial" in said
    assert [split.challenger for split in await read_history(redis, "sides")] == [None, "v1.1"]
    assert sorted(sides.trainings("begin")) == sorted(
        f"{rows} {seed}" for rows in (100, 140) for seed in range(6)
    )
    found = await read_improvement(redis, "sides")
    assert [attempt.version for attempt in found.attempts] == ["v1.1"]
    assert [done.step for done in found.attempts[0].done] == list(STEPS)
    assert len(list((sides.home / "labels" / "sides").iterdir())) == 1
    assert not list((sides.home / "training" / "sides" / "improve").glob("v1-*"))


def improve_until(sides: Sides, step: str, moment: str, *options: str) -> int | None:
    """Runs ``rollout improve`` until it is about to note that a step is done, or has just done so; then kills it."""
    process = commands.forked(_improve, sides.folder, sides.environment, step, moment, options)
    process.join()
    return process.exitcode


def _improve(folder: Path, environment: dict[str, str], step: Any, moment: str, options: tuple[str, ...]) -> None:
    from rollout.cli import main

    steps: Any = importlib.import_module("rollout.improvement.steps")
    write = steps.write_improvement

    async def written(redis: Redis, model: str, state: Improvement, owner: str) -> bool:
        is_there = bool(state.attempts) and state.attempts[-1].has_done(step)
        if is_there and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done: bool = await write(redis, model, state, owner)
        if is_there:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    steps.write_improvement = written
    _run(main, folder, environment, *options)


def _run(main: Callable[[], None], folder: Path, environment: dict[str, str], *options: str) -> None:
    import sys

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["rollout", "improve", "sides", "--seeds", "6", "--least", "30", *options]
    main()


async def test_what_the_gate_refuses_goes_to_nobody_and_is_not_tried_again(sides: Sides, redis: Redis) -> None:
    await review(redis, range(40))
    said = sides.improve(code=70, LEARNT="9")
    assert "sides:v1.1 was refused by the gate, and no client gets it" in said
    assert "The gate says worse. The candidate is worse: its error rate is" in said
    assert "to do    Nothing is on trial." in said
    split = await read_split(redis, "sides")
    assert split is not None
    assert (split.revision, split.challenger) == (1, None)
    assert (sides.home / "improve" / "sides" / "v1.1.json").exists()
    trained = sides.trainings()
    assert "0 labels are new, and 30 are wanted" in sides.improve(LEARNT="9")
    assert sides.trainings() == trained
    assert "sides:v1.2 is on trial" in sides.improve("--again")


async def test_a_persons_trial_is_left_alone_and_a_persons_champion_is_compared_with(
    sides: Sides, redis: Redis
) -> None:
    await review(redis, range(40))
    improve_until(sides, "gate", "after")
    await redis.delete(Keys("sides").improvement_lock)
    (sides.folder / "models" / "sides" / "recipe.py").write_text(
        RECIPE.replace('versions={"v1"', 'versions={"v9": Version(train, TASK, {}), "v1"').replace(
            "RECIPE =", 'TASK = Classification(labels=["left", "right"], risk=0.1)\nRECIPE ='
        )
    )
    sides.run("build", "models/sides", "v9")
    sides.run("split", "set", "sides", "--champion", "v1", "--challenger", "v9", "--share", "1%", "--yes")
    assert "v9 is on trial, which is left alone; v1.1 waits until it is over" in sides.improve()
    sides.run("split", "promote", "sides", "--yes")
    said = sides.improve()
    assert "v9 is champion by now: the gate compares with that one" in said
    gate = manifest_of(sides, "v1.1").gate
    assert gate is not None
    assert gate.against == "v9"
    assert [split.challenger for split in await read_history(redis, "sides")] == [None, "v9", None, "v1.1"]


async def test_labels_that_look_wrong_stop_it_until_somebody_has_looked(sides: Sides, redis: Redis) -> None:
    await review(redis, range(40), wrong=True)
    said = sides.improve(code=70)
    assert "sides:v1.1 could not be made, and no client gets it" in said
    assert "of 40 reviewed labels are what a classifier of the recipe's own rows says" in said
    assert "as if they were swapped" in said
    assert not sides.trainings("begin")
    assert "sides:v1.2 is on trial" in sides.improve("--again")
    assert "as if they were swapped" in sides.run("improve", "sides", "--show")


async def test_a_label_that_the_model_does_not_know_stops_it(sides: Sides, redis: Redis) -> None:
    await review(redis, range(40), task=Classification(labels=["left", "up"], risk=0.1))
    said = sides.improve(code=70)
    assert "sides:v1.1 could not be made, and no client gets it" in said
    assert re.search(r"labels-\w{16}\.jsonl, line \d+: .*left, right", said)
    assert not sides.trainings("begin")


async def test_a_step_that_never_ends_is_given_up(sides: Sides, redis: Redis) -> None:
    await review(redis, range(40))
    for _ in range(5):
        improve_until(sides, "labels", "before")
        await redis.delete(Keys("sides").improvement_lock)
    said = sides.improve(code=70)
    assert "it was begun 5 times and never came to its end" in said
    assert "0 labels are new" in sides.improve()


async def test_on_another_disk_the_bucket_has_what_it_takes(sides: Sides, redis: Redis, tmp_path: Path) -> None:
    """As with a pod that was lost: its labels are kept, and what it trained is trained again."""
    await review(redis, range(40))
    bucket = tmp_path / "bucket"
    sides.run("push", "sides:v1", bucket)
    assert improve_until(sides, "gate", "after", "--bundles", str(bucket)) == -signal.SIGKILL
    await redis.delete(Keys("sides").improvement_lock)
    shutil.rmtree(sides.home)
    shutil.rmtree(sides.folder / "store")
    sides.home.mkdir(mode=0o700)
    (sides.folder / "store").mkdir()
    sides.run("pull", bucket)
    assert "sides:v1.1 is on trial" in sides.improve("--bundles", bucket)
    assert (bucket / "sides" / "v1.1.bentomodel").exists()
    (labels,) = (bucket / "labels" / "sides").iterdir()
    assert (sides.home / "labels" / "sides" / labels.name).read_bytes() == labels.read_bytes()
    assert "2 of 2 bundles" in sides.run("pull", bucket), "labels are no bundles"


def pack_elsewhere(sides: Sides, folder: Path, exports: dict[str, str]) -> Sides:
    """Packs ``sides:v1.1`` as somebody else would who knows what an attempt learns from."""
    shutil.copytree(sides.folder, folder)
    shutil.rmtree(folder / "store" / "models" / "sides" / "v1.1", ignore_errors=True)
    elsewhere = Sides(folder, sides.environment["ROLLOUT_REDIS_URL"])
    code = LIE.format(exports=exports)
    subprocess.run([sys.executable, "-c", code], env=elsewhere.environment, check=True)
    return elsewhere


@pytest.mark.parametrize("killed", [("labels", "after"), ("gate", "after")])
async def test_what_a_bucket_has_in_the_place_of_its_bundle_is_not_signed(
    sides: Sides, redis: Redis, tmp_path: Path, killed: tuple[str, str]
) -> None:
    await review(redis, range(40))
    bucket = tmp_path / "bucket"
    private = sides.folder / "key.pem"
    write_keys(private, sides.folder / "key.pub.pem")
    sides.run("push", "sides:v1", bucket)
    improve_until(sides, *killed)
    await redis.delete(Keys("sides").improvement_lock)
    (attempt,) = (await read_improvement(redis, "sides")).attempts
    pack_elsewhere(sides, tmp_path / "elsewhere", attempt.exports).run("push", "sides:v1.1", bucket)
    shutil.rmtree(sides.folder / "store")  # as with a pod that was lost
    (sides.folder / "store").mkdir()
    sides.run("pull", bucket)
    said = sides.improve("--bundles", bucket, "--sign", private, code=70)
    assert "sides:v1.1 was built by somebody else meanwhile" in said
    assert not (sides.folder / "store" / "models" / "sides" / "v1.1" / "manifest.sig").exists()
    assert await challenger(redis) is None


async def test_where_bundles_are_signed_it_waits_for_a_signature(sides: Sides, redis: Redis) -> None:
    await review(redis, range(40))
    private, public = sides.folder / "key.pem", sides.folder / "key.pub.pem"
    write_keys(private, public)
    sides.run("sign", "sides:v1", "--key", private)
    sides.environment["ROLLOUT_PUBLIC_KEY"] = str(public)
    said = sides.improve()
    assert "v1.1 passed the gate and waits for its signature" in said
    assert await challenger(redis) is None
    assert "sides:v1.1 is on trial" in sides.improve("--sign", private)
    assert await challenger(redis) == "v1.1"
    sides.run("verify", "sides:v1.1", "--key", public)


async def challenger(redis: Redis) -> str | None:
    split = await read_split(redis, "sides")
    assert split is not None
    return split.challenger


async def test_a_change_between_the_look_and_the_trial_stands(sides: Sides, redis: Redis) -> None:
    await review(redis, range(40))
    process = commands.forked(_change_meanwhile, sides.folder, sides.environment)
    process.join()
    assert process.exitcode == 0
    history = await read_history(redis, "sides")
    assert [(split.by, split.challenger, len(split.rules)) for split in history] == [
        ("ada", None, 0),
        ("a person", None, 1),
        ("ada", "v1.1", 1),
    ]


def _change_meanwhile(folder: Path, environment: dict[str, str]) -> None:
    from rollout.cli import main
    from rollout.routing.split import Rule, Split
    from rollout.routing.splits import write_split

    steps: Any = importlib.import_module("rollout.improvement.steps")
    begin = steps.put_on_trial
    changed: list[Split] = []

    async def after_a_person(redis: Redis, model: str, *arguments: Any, **options: Any) -> Any:
        if not changed:
            split = await read_split(redis, model)
            assert split is not None
            rules = (Rule(arm="champion", clients=("acme",)),)
            after = msgspec.structs.replace(split, rules=rules, by="a person")
            changed.append(await write_split(redis, model, after))
        return await begin(redis, model, *arguments, **options)

    steps.put_on_trial = after_a_person
    _run(main, folder, environment)
