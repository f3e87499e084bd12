"""How the commands print: the console, its tables and its lists of facts."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDEST = 100  # longer lines are hard to read
NOTHING = "–"


def make_console(*, stderr: bool = False) -> Console:
    """Returns a console that is not too wide."""
    console = Console(highlight=False, stderr=stderr)
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
