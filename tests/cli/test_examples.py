"""The examples that commands show are read by the command line as it reads what is typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest

from rollout.cli import cli

# What people type first, and what they look up.
MAIN = {"build", "doctor", "gate", "gc", "improve", "ls", "predict", "pull", "report", "serve", "split", "verify"}


def commands(group: click.Group, name: str = "rollout") -> Iterator[tuple[str, click.Command]]:
    """Returns all commands with their full names."""
    context = click.Context(group)
    for part in group.list_commands(context):
        command = group.get_command(context, part)
        assert command is not None
        yield f"{name} {part}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {part}")


def examples(command: click.Command) -> list[str]:
    """Returns the examples of a command."""
    _, _, lines = (command.epilog or "").partition("Examples:\n")
    return [line.strip() for line in lines.splitlines()]


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, command in commands(cli) for line in examples(command)]
)
def test_an_example_can_be_typed(name: str, line: str) -> None:
    assert line.startswith(name), "it shows the command that it stands at"
    command: click.Command = cli
    _, *words = shlex.split(line)
    context = click.Context(cli)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    command.make_context(name, words)  # which refuses options and values that are not there


def test_the_main_commands_have_examples() -> None:
    assert {name.split()[1] for name, command in commands(cli) if examples(command)} >= MAIN
