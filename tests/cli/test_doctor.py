"""``rollout doctor``: what is broken is found, nothing is changed, and no check ends the others."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis import Redis as AnySyncRedis

from rollout.bundle.manifest import digest
from rollout.bundle.store import open_bundle
from rollout.doctor.bundles import answer
from rollout.doctor.checks import Check, is_one_at_work, run_checks
from rollout.doctor.finding import Finding, ok
from rollout.doctor.redis import NEEDED, OF_A_CLUSTER
from rollout.doctor.setup import Setup
from rollout.doctor.software import EXTRAS
from rollout.routing.split import Split
from rollout.routing.split_cache import cache_split
from rollout.routing.splits import write_split
from rollout.store import Redis
from tests.commands import rollout
from tests.conftest import ROOT, Service, free_port
from tests.redis_servers import RedisServer, running


class Doctor:
    """``rollout doctor`` on a home and a store of its own."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.home = folder / "home"
        self.store = folder / "store"
        self.home.mkdir(mode=0o700)
        self.environment = os.environ | {
            "ROLLOUT_HOME": str(self.home),
            "ROLLOUT_REDIS_URL": redis_url,
            "ROLLOUT_PORT": str(free_port()),
            "BENTOML_HOME": str(self.store),
        }

    def __call__(self, *options: str, code: int = 0, **environment: str) -> dict[str, list[dict[str, str]]]:
        """Runs it; returns what each check found."""
        done = rollout("doctor", "--json", *options, environment=self.environment | environment)
        assert done.returncode == code, done.stdout + done.stderr
        self.output = done.stdout + done.stderr
        found: dict[str, list[dict[str, str]]] = {}
        for one in json.loads(done.stdout):
            found.setdefault(one["check"], []).append(one)
        return found

    def fault(self, check: str, **environment: str) -> dict[str, str]:
        """Runs it where there is one fault of a check; returns that."""
        (fault,) = [one for one in self(code=1, **environment)[check] if one["level"] == "fault"]
        assert fault["todo"]
        return fault


@pytest.fixture
def doctor(bundles: str, valkey_url: str, valkey_admin_url: str, tmp_path: Path) -> Doctor:
    with AnySyncRedis.from_url(valkey_admin_url, socket_timeout=30) as admin:
        admin.flushall()
    doctor = Doctor(tmp_path, valkey_url)
    for place in ("models/digits", "packed/digits"):
        shutil.copytree(Path(bundles, place), doctor.store / place)
    for place in ("bentos", "envs", "tmp"):
        (doctor.store / place).mkdir()
    return doctor


async def put(redis: Redis, champion: str = "v1", **digests: str) -> None:
    await write_split(redis, "digits", Split(champion=champion, digests=digests))


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns everything below a folder, with its mode and when it was changed."""
    every = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_mode, path.stat().st_mtime_ns) for path in every}


async def test_where_nothing_is_wrong_it_says_so_and_changes_nothing(
    doctor: Doctor, redis: Redis, tmp_path: Path
) -> None:
    await put(redis, v1=digest(open_bundle("digits:v1")[1]))
    before = files(tmp_path)
    found = await asyncio.to_thread(doctor)
    assert files(tmp_path) == before
    assert {"settings", "home", "disk", "ports", "cores", "bundles", "Redis", "splits", "memory"} < found.keys()
    assert [one["what"] for one in found["splits"]] == ["all bundles are here for digits (in Redis)"]
    assert found["bundles"][0]["what"].startswith("2 of 2 bundles match their hashes")
    said = " ".join(one["what"] for one in found["Redis"])
    for part in (
        "Valkey 9",
        "nothing is evicted",
        "append-only file is on",
        "commands that are needed are permitted",
    ):
        assert part in said
    assert "secret" not in doctor.output


@pytest.mark.parametrize(
    ("variables", "what", "todo"),
    [
        ({"ROLLOUT_WORKER": "3"}, "there is no setting ROLLOUT_WORKER,", "did you mean ROLLOUT_WORKERS?"),
        ({"ROLLOUT_LOG": "yaml"}, "ROLLOUT_LOG: invalid enum value 'yaml'", "correct or unset ROLLOUT_LOG"),
        ({"ROLLOUT_HOST": "0.0.0.0"}, "ROLLOUT_HOST is 0.0.0.0", "set ROLLOUT_TOKENS"),
        ({"ROLLOUT_TOKENS": "admin:sesame"}, "ROLLOUT_TOKENS: pair 1", "correct or unset ROLLOUT_TOKENS"),
        ({"ROLLOUT_GRPC_PORT": "{port}"}, "ROLLOUT_PORT and ROLLOUT_GRPC_PORT are both", "correct or unset"),
    ],
)
def test_what_is_wrong_with_the_settings(doctor: Doctor, variables: dict[str, str], what: str, todo: str) -> None:
    port = doctor.environment["ROLLOUT_PORT"]
    fault = doctor.fault("settings", **{name: value.format(port=port) for name, value in variables.items()})
    assert fault["what"].startswith(what)
    assert fault["todo"].startswith(todo)
    assert "sesame" not in doctor.output


def test_several_settings_at_once_are_all_named_and_the_others_hold(doctor: Doctor) -> None:
    found = doctor(
        code=1, ROLLOUT_WORKER="3", ROLLOUT_LOG="yaml", ROLLOUT_TIMEOUT_MS="soon", ROLLOUT_WORKERS="500"
    )
    said = [one["what"] for one in found["settings"] if one["level"] == "fault"]
    assert {next(re.finditer(r"ROLLOUT_\w+", one)).group() for one in said} == {
        "ROLLOUT_WORKER",
        "ROLLOUT_LOG",
        "ROLLOUT_TIMEOUT_MS",
    }
    assert found["cores"][0]["level"] == "warning"
    assert "workers: 500" in found["cores"][0]["what"]


def test_settings_that_are_refused_in_the_same_words_are_both_named() -> None:
    setup = Setup({"ROLLOUT_HOME": "~nobody-at-all/x", "ROLLOUT_PUBLIC_KEY": "~nobody-at-all/y"})
    assert setup.refused.keys() == {"ROLLOUT_HOME", "ROLLOUT_PUBLIC_KEY"}


def test_a_package_that_is_not_there_is_said(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['redis'] = None; sys.argv[1:] = ['doctor']; from rollout.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("rollout: a package is missing or broken (")
    assert done.stderr.count("\n") == 1


def test_a_home_that_others_can_enter_stays_as_it_is(doctor: Doctor) -> None:
    doctor.home.chmod(0o755)
    (found,) = doctor()["home"]
    assert (found["level"], found["todo"].split(";")[0]) == ("warning", f"`chmod 700 {doctor.home}`")
    assert doctor.home.stat().st_mode & 0o777 == 0o755


def test_a_file_in_the_place_of_the_home(doctor: Doctor) -> None:
    doctor.home.rmdir()
    doctor.home.touch()
    assert doctor.fault("home")["what"].endswith("is no folder")


def test_a_changed_byte_of_a_bundle(doctor: Doctor) -> None:
    (file,) = (doctor.store / "models" / "digits" / "v2" / "onnx").iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert doctor.fault("bundles")["what"] == f"digits:v2 is refused: onnx/{file.name} was changed after packing"


def test_the_examples_are_run_where_that_is_asked(doctor: Doctor) -> None:
    assert "models" not in doctor()
    (doctor.store / "models" / "digits" / "v2" / "golden.npz").write_bytes(b"")
    good, bad = doctor("--deep", code=1)["models"]
    assert good["what"] == "digits:v1 answers its examples as when it was packed"
    assert (bad["level"], bad["what"]) == ("fault", "digits:v2 is refused: golden.npz was changed after packing")


async def test_a_split_whose_bundles_are_not_here_or_are_others(doctor: Doctor, redis: Redis) -> None:
    await put(redis, "v9")
    fault = await asyncio.to_thread(doctor.fault, "splits")
    assert fault["what"] == "digits:v9 is in the split, and there is no such bundle here"
    await write_split(redis, "digits", Split(revision=1, champion="v1", digests={"v1": "0" * 64}))
    fault = await asyncio.to_thread(doctor.fault, "splits")
    assert fault["what"].startswith("digits:v1 is another bundle than the one that was put into the split")


def test_without_redis_the_last_splits_that_were_seen_are_looked_at(doctor: Doctor) -> None:
    cache_split(doctor.home, "digits", Split(champion="v1"))
    found = doctor(code=1, ROLLOUT_REDIS_URL="redis://ada:sesame@127.0.0.1:1")
    (fault,) = found["Redis"]
    assert fault["level"] == "fault"
    assert fault["what"].startswith("redis://127.0.0.1:1/0: Redis does not answer")
    assert found["splits"][0]["what"].startswith("all bundles are here for digits (as last seen here")
    assert "sesame" not in doctor.output


def test_an_embedded_valkey_that_does_not_run_is_not_started(doctor: Doctor) -> None:
    (found,) = doctor(ROLLOUT_REDIS_URL="")["Redis"]
    assert found["level"] == "ok"
    assert "no embedded Valkey runs" in found["what"]
    assert not list(doctor.home.iterdir())


def test_a_redis_that_drops_forgets_and_forbids(doctor: Doctor, tmp_path: Path, redis_acl: str) -> None:
    server = RedisServer(
        tmp_path / "redis",
        "maxmemory-policy allkeys-lru",
        "appendonly no",
        redis_acl.format("secret").replace("+xadd ", "").replace("+mget ", ""),
    )
    with running(server):
        found = doctor(code=1, ROLLOUT_REDIS_URL=f"redis://rollout:secret@{server.address}")["Redis"]
    said = {one["what"].split(":")[0]: one["level"] for one in found}
    assert said["maxmemory-policy is allkeys-lru"] == "fault"
    assert said["the append-only file is off"] == "warning"
    (forbidden,) = [one["what"] for one in found if "permitted" in one["what"]]
    assert forbidden == "the user of Redis is not permitted: mget, xadd"


def test_a_port_that_another_program_has(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        what = doctor.fault("ports", ROLLOUT_PORT=str(port))["what"]
        assert what.startswith(f"port {port} on 127.0.0.1: ")
        assert f"(process {os.getpid()}) listens" in what


def test_a_port_that_the_service_has(doctor: Doctor, service: Service) -> None:
    port = service.base.rpartition(":")[2]
    assert (
        doctor(ROLLOUT_PORT=port)["ports"][0]["what"] == f"port {port}: a Rollout service listens, and is ready"
    )


def test_a_check_that_fails_or_hangs_is_a_finding_and_the_others_go_on() -> None:
    end = threading.Event()

    def fails(_: Setup) -> Iterator[Finding]:
        yield ok("before")
        raise ZeroDivisionError("a number")

    def hangs(_: Setup) -> list[Finding]:
        end.wait(60)
        return []

    checks = [Check("one", fails), Check("two", hangs, 0.05), Check("three", lambda _: [ok("after")])]
    found: list[tuple[str, Any]] = list(run_checks(Setup({}), checks))
    assert is_one_at_work()
    end.set()
    assert [(name, one.level) for name, one in found] == [
        ("one", "ok"),
        ("one", "warning"),
        ("two", "warning"),
        ("three", "ok"),
    ]
    assert found[1][1].what == "could not be looked at: ZeroDivisionError: a number"
    assert found[2][1].what == "took longer than 0.05 s"


def test_its_tables_are_those_of_the_documents(redis_acl: str) -> None:
    permitted = set(re.findall(r" \+(\S+)", redis_acl))
    assert {command.split()[0] for command in NEEDED} | {"eval"} == permitted - {
        command.replace(" ", "|") for command in OF_A_CLUSTER
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert EXTRAS.keys() == project["optional-dependencies"].keys()


def test_the_server_is_only_asked_about_whole_commands(valkey_admin_url: str) -> None:
    with AnySyncRedis.from_url(valkey_admin_url) as admin:
        known = admin.command()
    for command in NEEDED + OF_A_CLUSTER:
        name, *arguments = command.split()
        arity = known[name]["arity"]
        assert len(arguments) + 1 == arity or (arity < 0 and len(arguments) + 1 >= -arity), command


def test_nothing_is_imported_from_the_folder_where_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "click.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(tmp_path)
    setup = SimpleNamespace(deep=True, tags=["two:none"], environ=os.environ)
    (found,) = answer(cast("Setup", setup))
    assert not (tmp_path / "imported").exists()
    assert "there is no bundle two:none" in found.what
    for place in ("src", "service"):
        for file in (ROOT / place).rglob("*.py"):
            assert not re.search(r"\[sys\.executable, (?!\"-P\")", file.read_text()), file
