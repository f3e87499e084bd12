"""``rollout review export``: labels out, all of them or what changed since."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from rollout.bundle.machine import user_name
from rollout.cli.completion import model_argument
from rollout.cli.examples import examples
from rollout.cli.output import JsonOut, say
from rollout.cli.shared import call_for
from rollout.errors import ConfigError
from rollout.store import Redis

if TYPE_CHECKING:
    from rollout.job.labels import Format

# Whoever reaches Redis needs no token; the access log says how they came.
ROLE = "terminal"


class Start(NamedTuple):
    """Where an export begins.

    Attributes:
        since: The cursor after which it does; ``None`` for the beginning.
        file: Where to write down how far it came.
    """

    since: int | None
    file: Path | None


@click.command(
    epilog=examples(
        "rollout review export digits --out labels.jsonl",
        "rollout review export digits --cursor-file cursor --out labels.jsonl --force",
    )
)
@model_argument
@click.option("--since", help="Go on after a row's cursor, or from a time in ISO 8601.")
@click.option(
    "--cursor-file",
    type=click.Path(path_type=Path),
    help="Go on where the file says, and write down in it how far this came.",
)
@click.option("--format", "asked", type=click.Choice(["jsonl", "parquet", "label-studio"]))
@click.option("--out", type=click.Path(path_type=Path), help="Write there; stdout by default.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def export(
    model: str,
    since: str | None,
    cursor_file: Path | None,
    asked: Format | None,
    out: Path | None,
    *,
    force: bool,
) -> None:
    """Write a row for each prediction that people decided on, oldest decision first.

    Without a beginning, that is every label that stands; after one, whatever changed since, labels that were
    taken back included. The format follows from the extension of --out: .jsonl, .parquet, or .json for the open
    items as tasks of Label Studio.
    """
    from rollout.job.labels import choose_format  # noqa: PLC0415  pyarrow takes long to import

    chosen = choose_format(out, asked, replace=force)
    if chosen == "label-studio":
        if since is not None or cursor_file is not None:
            raise ConfigError("Label Studio gets what is open now: leave --since and --cursor-file out")
        tasks = call_for(model, lambda redis: _export_tasks(redis, model, out))
        say(f"{tasks:,} tasks", err=True)
        return
    start = _read_start(since, cursor_file)
    rows, cursor = call_for(model, lambda redis: _export_rows(redis, model, start.since, out, chosen))
    if start.file is not None and cursor is not None:
        _write_cursor(start.file, cursor)
    goes_on = "" if cursor is None else f"; --since {cursor} goes on after them"
    say(f"{rows:,} rows{goes_on}", err=True)


async def _export_rows(
    redis: Redis, model: str, since: int | None, out: Path | None, chosen: Format
) -> tuple[int, int | None]:
    from rollout.job.labels import open_rows  # noqa: PLC0415
    from rollout.review.export import export_rows, read_lineage  # noqa: PLC0415

    count, cursor = 0, since
    rows = export_rows(redis, model, since, read_lineage(model), who=user_name(), role=ROLE)
    with open_rows(out, JsonOut(), chosen) as write:
        async for row in rows:
            write(row)
            count, cursor = count + 1, row.cursor
    return count, cursor


async def _export_tasks(redis: Redis, model: str, out: Path | None) -> int:
    from rollout.job.labels import open_tasks  # noqa: PLC0415
    from rollout.review.label_studio import export_tasks  # noqa: PLC0415

    count = 0
    with open_tasks(out, JsonOut()) as write:
        async for task in export_tasks(redis, model, who=user_name(), role=ROLE):
            write(task)
            count += 1
    return count


def _read_start(since: str | None, file: Path | None) -> Start:
    from rollout.review.export import read_since  # noqa: PLC0415

    if file is None:
        return Start(None if since is None else read_since(since), None)
    if since is not None:
        raise ConfigError("--since and --cursor-file both say where to begin: leave one out")
    if not file.parent.is_dir():
        raise ConfigError(f"--cursor-file {file}: there is no folder {file.parent}")
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        return Start(None, file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--cursor-file {file} cannot be read: {error}") from None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ConfigError(f"--cursor-file {file} holds no cursor; delete it to export everything again")
    return Start(int(text), file)


def _write_cursor(file: Path, cursor: int) -> None:
    from rollout.job.sink import until_whole  # noqa: PLC0415

    with until_whole(file) as partial:
        partial.write_text(f"{cursor}\n")
