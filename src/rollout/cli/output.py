"""How the commands print: all of it passes here, so that what a bundle or Redis says tells a terminal nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import click
import msgspec
import rich.console
import rich.table
import rich.text
from rich import box
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn

WIDEST = 100  # longer lines are hard to read
NOTHING = "–"

Console = rich.console.Console
Table = rich.table.Table


def printable(text: str) -> str:
    """Returns a text from elsewhere as a terminal may have it: what is no printable character is escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def say(*lines: str, err: bool = False) -> None:
    """Prints lines."""
    for line in lines:
        click.echo(printable(line), err=err)


def as_size(count: float) -> str:
    """Returns a number of bytes in words."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def print_json(value: Any) -> None:
    """Prints a value as JSON, in which what is no printable character is escaped as JSON does it."""
    click.echo(_printable_json(msgspec.json.format(msgspec.json.encode(value), indent=2)))


def _printable_json(text: bytes) -> str:
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text.decode())


class JsonOut:
    """The standard output for JSON: as it is for a file or a pipe, and printable for a terminal."""

    def write(self, data: bytes) -> None:
        """Writes whole values."""
        if sys.stdout.isatty():
            data = _printable_json(data).encode()
        sys.stdout.buffer.write(data)

    def flush(self) -> None:
        """Returns when all is written."""
        sys.stdout.buffer.flush()


class Text(rich.text.Text):
    """A text with a style, without markup and printable."""

    def __init__(self, text: str = "", *arguments: Any, **options: Any) -> None:
        super().__init__(printable(text), *arguments, **options)

    def append(self, text: rich.text.Text | str, style: Any = None) -> Text:
        """Appends a text."""
        super().append(printable(text) if isinstance(text, str) else text, style)
        return self

    @classmethod
    def assemble(cls, *parts: Any, **options: Any) -> Text:
        """Joins texts, each alone or with its style."""
        return cast("Text", super().assemble(*parts, **options))


class _Console(Console):
    """A console to which a string is a text, wherever it stands: in a line, a cell, a head or a title."""

    def render_str(
        self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any
    ) -> Text:
        return Text(text, style, justify=justify, overflow=overflow)


def make_console(*, stderr: bool = False) -> Console:
    """Returns a console that is not too wide."""
    console = _Console(highlight=False, stderr=stderr)
    console.width = min(console.width, WIDEST)
    return console


def make_table(title: str) -> Table:
    """Returns an empty table."""
    return Table(
        title=Text(title), title_justify="left", box=box.HORIZONTALS, pad_edge=False, collapse_padding=True
    )


def make_grid(rows: Iterable[tuple[str, Text]]) -> Table:
    """Returns facts, each with its name."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(Text(f" {name}", "dim"), text)
    return grid


def titled(name: str, texts: Iterable[Text]) -> list[tuple[str, Text]]:
    """Returns facts of which only the first carries the name."""
    return [("" if index else name, text) for index, text in enumerate(texts)]


@contextmanager
def working(console: Console, words: str) -> Iterator[Callable[[str], None]]:
    """Shows in a terminal that something is worked on; gives what changes the words."""
    with console.status(Text(words)) as status:
        yield lambda now: status.update(Text(now))


def make_progress(console: Console, *, transient: bool = False) -> Progress:
    """Returns a bar with its share, a description and the time that is left, for terminals only."""
    return Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %", markup=False),
        _Description(),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=not console.is_terminal,
    )


class _Description(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description)
