"""``rollout ls`` and ``rollout gc`` on a real Valkey, with a model of which there are many versions."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from rollout.bundle.manifest import digest, write_manifest
from rollout.bundle.store import bundle_exists, open_bundle, remove_bundle
from rollout.cli import cli
from rollout.cli.shared import call
from rollout.errors import MissingBundleError
from rollout.keys import Keys
from rollout.routing.improvement import Attempt, Improvement
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.routing.traffic import Worker, add_traffic
from rollout.store import Redis
from tests.cli.test_split import Command
from tests.conftest import STORE

MODEL = "attic"
EARLY, LATE = "2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"
MODELS = Path(STORE, "models", MODEL)


def pack(version: str, created_at: str = EARLY, **changes: Any) -> Path:
    """Puts another version of the model into the store, which can do what ``digits:v1`` can."""
    folder, manifest = open_bundle("digits:v1")
    place = MODELS / version
    shutil.copytree(folder, place)
    changes = {"name": MODEL, "version": version, "created_at": created_at} | changes
    write_manifest(place, replace(manifest, **changes))
    (MODELS / "latest").write_text(version)
    return place


@pytest.fixture
def attic(bundles: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("rollout.bundle.store.SETTLED_S", 0.0)
    yield
    shutil.rmtree(MODELS, ignore_errors=True)


async def put(redis: Redis, **parts: Any) -> Split:
    """Replaces the split."""
    return await write_split(redis, MODEL, Split(**parts))


async def gc(redis_url: str, home: Path, *options: str, code: int = 0) -> Any:
    """Runs ``rollout gc`` where nobody can be asked; returns what goes, and why the others stay."""
    environment = {"ROLLOUT_HOME": str(home), "ROLLOUT_REDIS_URL": redis_url}
    done = await asyncio.to_thread(CliRunner(env=environment).invoke, cli, ["gc", *options, "--json"])
    assert done.exit_code == code, done.output
    if code:
        return done.stderr
    said = json.loads(done.stdout)
    stays = {one["tag"].partition(":")[2]: one["stays"] for one in said["kept"] if one["tag"].startswith(MODEL)}
    assert all(stays.values())
    return {one["tag"].partition(":")[2] for one in said["removed"]}, stays


async def test_gc_removes_what_nobody_names_and_says_why_the_others_stay(
    attic: None, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    lineage = open_bundle("digits:v1")[1].lineage
    for version in ("old", "gone", "v1", "previous", "teacher", "warm", "next", "of", "of-first"):
        pack(version)
    pack("v2", lineage=lineage | {"teacher": {"version": "teacher"}, "again": "first"})
    pack("first", lineage=lineage | {"again": "of-first"})
    pack("new", LATE)
    (pack("signed") / "manifest.sig").write_text("of somebody")
    (pack("torn") / "manifest.json").write_text("{")
    await put(redis, champion="old")
    await put(redis, revision=1, champion="v1", previous="previous", challenger="v2", experiment="of-both")
    await add_traffic(redis, MODEL, {}, Worker(id="here-1", revision=2, variants={"v1": "onnx", "warm": "onnx"}))
    attempt = Attempt(version="next", of="of", against="v1", labels=1, exports={}, began=LATE)
    made = msgspec.json.encode(Improvement().begin(attempt, 0))
    await redis.set(Keys(MODEL).improvement, made)

    removed, stays = await gc(valkey_url, tmp_path, "--yes")
    assert removed == {"gone"}
    assert stays["old"] == "revision 1 of the split names it"
    removed, stays = await gc(valkey_url, tmp_path, "--keep", "1", "--yes")
    assert removed == {"old"}
    assert not bundle_exists(f"{MODEL}:old")
    assert "cannot be judged" in stays.pop("torn")
    assert stays == {
        "v1": "the champion of the split",
        "v2": "the challenger of the split",
        "previous": "the previous of the split",
        "warm": "a worker has it in memory",
        "next": "`rollout improve` is at work on it",
        "of": "`rollout improve` is at work on it",
        "teacher": "v2, which stays, comes from it",
        "first": "v2, which stays, comes from it",
        "of-first": "first, which stays, comes from it",
        "new": "it was packed after the champion, and may go on trial",
        "signed": "it is signed; --signed removes such, too",
    }
    removed, _ = await gc(valkey_url, tmp_path, "--signed", "--yes")
    assert removed == {"signed"}


async def test_gc_leaves_alone_what_it_cannot_know_about(
    attic: None, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    pack("old")
    pack("v1")
    await gc("redis://127.0.0.1:1", tmp_path, "--yes", code=1)
    assert bundle_exists(f"{MODEL}:old")
    _, stays = await gc(valkey_url, tmp_path, "--yes")
    assert set(stays.values()) == {"its model never had a split in this Redis"}
    await put(redis, champion="elsewhere")
    _, stays = await gc(valkey_url, tmp_path, "--yes")
    assert set(stays) == {"old", "v1"}
    await put(redis, revision=1, champion="v1")
    await gc(valkey_url, tmp_path, code=2)  # nobody can be asked
    assert bundle_exists(f"{MODEL}:old")


async def test_gc_looks_again_after_it_asked(
    attic: None, redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("v1", "old", "other"):
        pack(version)
    await put(redis, champion="v1")

    def name_old(**_: object) -> None:
        named = Split(revision=1, champion="v1", challenger="old", experiment="of-both")
        call(lambda redis: write_split(redis, MODEL, named), valkey_url)

    monkeypatch.setattr("rollout.cli.gc.ask", name_old)
    removed, _ = await gc(valkey_url, tmp_path)
    assert removed == {"other"}
    assert bundle_exists(f"{MODEL}:old")


def test_a_bundle_is_removed_whole_and_the_pointer_to_the_latest_moves(attic: None) -> None:
    pack("v1")
    pack("v2")
    remove_bundle(f"{MODEL}:v2")
    assert sorted(path.name for path in MODELS.iterdir()) == ["latest", "v1"]
    assert (MODELS / "latest").read_text() == "v1"
    remove_bundle(f"{MODEL}:v1")
    assert not MODELS.exists()
    with pytest.raises(MissingBundleError):
        remove_bundle(f"{MODEL}:v1")


async def test_ls_lists_what_is_there_and_what_serves(
    attic: None, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    (pack("v1") / "manifest.sig").write_text("of somebody")
    pack("v2")
    (pack("torn") / "manifest.json").write_text("{")
    _, second = open_bundle(f"{MODEL}:v2")
    await write_split(
        redis,
        MODEL,
        Split(champion="v1", challenger="lost", experiment="of-both"),
        quarantine={digest(second): "v2"},
    )
    for worker in ("here-1", "here-2"):
        await add_traffic(redis, MODEL, {}, Worker(id=worker, revision=1, variants={"v1": "onnx"}))
    ls = Command(tmp_path, valkey_url, "ls")
    said = await asyncio.to_thread(ls.json, MODEL)
    assert said["redis"] == "ok"
    found = {one["version"]: one for one in said["versions"]}
    assert list(found) == ["lost", "torn", "v1", "v2"]
    v1 = found["v1"]
    assert (v1["serves"], v1["workers"], v1["signed"], v1["packed_at"]) == ("champion", 2, True, EARLY)
    assert v1["variants"] == list(open_bundle("digits:v1")[1].variants)
    assert v1["bytes"] > 100_000
    assert found["v2"]["quarantined"]
    assert found["lost"]["serves"] == "challenger"
    assert found["lost"]["trouble"].startswith("missing")
    assert found["torn"]["trouble"]
    printed = await asyncio.to_thread(ls, MODEL)
    assert "champion, 2 workers" in printed
    assert "quarantined" in printed
    assert f"{MODEL}:lost: missing" in printed
    await asyncio.to_thread(lambda: ls("nonsense", code=1))


def test_ls_lists_the_bundles_without_redis(bundles: str, tmp_path: Path) -> None:
    ls = Command(tmp_path, "redis://127.0.0.1:1", "ls")
    printed = ls()
    assert "digits" in printed
    assert ls.errors.startswith("What serves is not known: redis://127.0.0.1:1/0: Redis does not answer")
    assert "Redis does not answer" in ls.json()["redis"]


@pytest.mark.parametrize("name", ["a:b/v1", "attic\udcff/v1", "attic/\x1b[31m\nv9 serves"])
def test_a_folder_that_is_no_bundle_is_none(attic: None, tmp_path: Path, name: str) -> None:
    pack("v1")
    place = MODELS.parent / name
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
    try:
        done = CliRunner(env={"ROLLOUT_HOME": str(tmp_path)}).invoke(cli, ["ls", "--json"])
    finally:
        shutil.rmtree(place.parent)
    assert done.exit_code == 0, done.output
    assert {one["version"] for one in json.loads(done.stdout)["versions"] if one["model"] == MODEL} == {"v1"}
    assert not {one["model"] for one in json.loads(done.stdout)["versions"]} & {"a", "a:b"}
