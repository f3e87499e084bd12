"""The commands, as they are typed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click

from rollout.cli import cli
from tests.commands import rollout
from tests.conftest import BIN, run_service


def run(home: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    """Runs ``rollout``; returns what it printed."""
    everything = os.environ | {"ROLLOUT_HOME": str(home), "COLUMNS": "120"} | environment
    done = rollout(*arguments, environment=everything)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_a_warning_is_a_line_whatever_a_library_made_of_logging() -> None:
    code = """
import contextlib, logging, sys
from rollout.cli import main
logging.warning("a library")
sys.argv = ["rollout", "--version"]
with contextlib.suppress(SystemExit):
    main()
logging.getLogger("rollout.any").warning("said")
"""
    done = subprocess.run([BIN / "python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["WARNING:root:a library", "said"]


def test_verify_prints_a_table(bundles: str, tmp_path: Path) -> None:
    output = run(tmp_path, "verify", "digits:v2")
    assert "digits:v2: 8 files match their hashes" in output
    for variant in ("onnx", "onnx-int8", "torchscript", "export"):
        found = [line.split()[1:5] for line in output.splitlines() if re.match(rf" {variant} ", line)]
        assert [examples for examples, *_ in found] == ["golden", "reference"]
        for _, rows, *flipped in found:
            assert int(rows) > 20
            assert flipped == ["0", "0"]
    assert "`rollout report digits:v2`" in output
    assert run(tmp_path, "verify", "digits:v9", code=1) == (
        "rollout: there is no bundle digits:v9; `rollout ls` shows what the store has\n"
    )
    assert "there is no bundle nonsense:::" in run(tmp_path, "verify", "nonsense:::", code=1)


def test_build_builds_only_what_is_missing(bundles: str, tmp_path: Path) -> None:
    assert run(tmp_path, "build", "models/digits") == (
        "digits:v1 is in the store already\ndigits:v2 is in the store already\n"
        "digits:v3 learns from reviewed labels and is left out; "
        "`rollout build models/digits v3 --labels FILE` builds it\n"
    )
    assert "has no version v7; it has v1, v2, v3" in run(tmp_path, "build", "models/digits", "v7", code=1)
    assert "has no recipe.py" in run(tmp_path, "build", "models/cats", code=1)


def test_the_demo_greets_with_a_line_that_works_and_keeps_what_was_changed(bundles: str, tmp_path: Path) -> None:
    command = [str(BIN / "rollout"), "demo", "--port", "{port}", "--workers", "1"]
    with run_service(tmp_path, command) as demo:
        for _ in range(100):
            greeting = demo.log.read_text()
            if "Ctrl-C stops it." in greeting:
                break
            time.sleep(0.1)
        (line,) = [line for line in greeting.splitlines() if line.startswith("curl ")]
        answer = json.loads(subprocess.run(["bash", "-c", line], check=True, capture_output=True).stdout)
        assert answer["version"] in ("v1", "v2")
        assert answer["key"] == "order-17"
        for url in re.findall(rf"{demo.base}/\S+", greeting):
            with demo.client() as client:
                assert client.get(url).status_code in (200, 303, 405)
        assert str(tmp_path / "token") in greeting
        with demo.admin() as admin:
            split = admin.get("/v1/models/digits/split").json()
        assert (split["champion"], split["challenger"], split["share"]) == ("v1", "v2", 0.01)
        assert split["policy"]["by_itself"] == ["step", "promote", "rollback"]
        sent = run(tmp_path, "demo", "traffic", "--url", demo.base, "--seconds", "6", "--rate", "200")
        assert "v2 has 1%; hold: " in sent
        (scans,) = re.findall(r"([\d,]+) scans were sent, and [\d,]+ digits reported", sent)
        assert int(scans.replace(",", "")) >= 250
        with demo.client() as client:
            evidence = client.get("/v1/models/digits/verdict").json()["evidence"]
        assert evidence["control"]["clients"] > 0
    run(tmp_path, "split", "set", "digits", "--champion", "v2", "--yes")
    with run_service(tmp_path, command) as again, again.client() as client:
        assert client.get("/v1/models/digits").json()["split"]["champion"] == "v2"


def test_traffic_to_no_service_is_a_failure(tmp_path: Path) -> None:
    said = run(tmp_path, "demo", "traffic", "--url", "http://127.0.0.1:9", "--seconds", "1", code=1)
    assert "no Rollout service answers at http://127.0.0.1:9: " in said


def test_a_home_too_deep_for_a_socket_works_as_well(bundles: str, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    run(deep, "split", "set", "digits", "--champion", "v1", "--yes")
    assert json.loads(run(deep, "split", "show", "digits", "--json"))["champion"] == "v1"


def test_help_needs_no_home(tmp_path: Path) -> None:
    assert "Commands:" in run(tmp_path / "unused", "--help")
    assert not (tmp_path / "unused").exists()


def test_no_option_takes_a_secret_itself() -> None:
    """Whoever lists the processes of the machine would see it."""
    files = (click.File, click.Path)
    secret = re.compile("token|secret|password")
    options = [one for command in commands_of(cli) for one in command.params if secret.search(one.name or "")]
    assert options, "those that name a file"
    assert [one.opts for one in options if not isinstance(one.type, files)] == []


def commands_of(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from commands_of(command)
