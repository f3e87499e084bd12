"""Commands are imported one by one: to list them, or to run a quick one, takes no engine."""

from __future__ import annotations

import resource
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from rollout.cli import COMMANDS, cli
from tests.conftest import BIN

# What takes long to import, or is not there where only a split is changed.
HEAVY = ("bentoml", "numpy", "onnxruntime", "redis", "rollout.inference.engine", "rich", "torch")


def imported(code: str) -> set[str]:
    """Returns which of ``HEAVY`` a process of its own has imported after some code."""
    code += f"; import sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        ("import rollout", set()),
        ("from rollout.cli import cli; cli(['--help'], standalone_mode=False)", set()),
        ("import rollout.cli.split", {"numpy", "redis", "rich"}),  # verdicts are worked out in NumPy
        ("import rollout.cli.serve", {"redis", "rich"}),
    ],
)
def test_only_what_is_needed_is_imported(code: str, needed: set[str]) -> None:
    assert imported(code) <= needed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_listed_in_a_line(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    listed = [line.split(maxsplit=1) for line in CliRunner().invoke(cli, ["--help"]).output.splitlines()]
    assert [name, COMMANDS[name].summary] in listed


def test_help_takes_little_time() -> None:
    """Of one core, whatever else it does: 0.1 s here, most of it click's and Python's own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([BIN / "rollout", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
