"""A group that imports a command when it is asked for: some of them need what takes seconds to import."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem


class Lazy(NamedTuple):
    """Where a command is, and what a list of commands says about it.

    Attributes:
        name: The name of its module here, and its own name there.
        summary: What it does, in a line.
    """

    name: str
    summary: str


class LazyGroup(click.Group):
    """A group of commands that are imported one by one.

    Args:
        lazy: The commands, by the names by which they are called.
        options: What any group takes.
    """

    def __init__(self, *, lazy: Mapping[str, Lazy], **options: Any) -> None:
        super().__init__(**options)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._lazy and cmd_name not in self.commands:
            name = self._lazy[cmd_name].name
            self.add_command(getattr(importlib.import_module(f"{__package__}.{name}"), name), cmd_name)
        return super().get_command(ctx, cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        begun = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self._lazy[name].summary) for name in begun]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._lazy[name].summary) for name in self.list_commands(ctx)])
