"""``rollout predict``: a file of rows in, a file of answers out, scored by a running service."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec

from rollout.bounded import limit_memory, usable_memory
from rollout.cli.examples import examples
from rollout.cli.output import make_console, make_progress, say
from rollout.config import load_settings
from rollout.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from rollout.job.row import Columns

SOME_ROWS_FAILED = 3
# A file of kilobytes can stand for any number of gigabytes.
MEMORY_SHARE = 0.5


class Job:
    """How far a job is.

    Attributes:
        rows: Rows answered, with a prediction or an error.
        failed: Those with an error.
        first: The first of them, in words.
        left_out: How much in FILE is not a row.
    """

    def __init__(self) -> None:
        self.rows = self.failed = self.left_out = 0
        self.first = ""
        self._start = time.monotonic()

    def add(self, error: str | None) -> None:
        """Counts a row."""
        self.rows += 1
        if error is not None:
            self.failed += 1
            self.first = self.first or f"row {self.rows:,}: {error}"

    def __str__(self) -> str:
        rate = self.rows / max(time.monotonic() - self._start, 1e-9)
        return f"{self.rows:,} rows, {rate:,.0f} rows/s, {self.failed:,} failed"


@click.command(
    epilog=examples(
        "rollout predict rows.csv --out answers.csv",
        "rollout predict scans.zip --client batch-7 --out answers.parquet --url http://localhost:3000",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Write the answers there.")
@click.option("--model", help="The model; the service's only one by default.")
@click.option("--client-id", default="client_id", show_default=True, help="The column of client IDs.")
@click.option("--client", default="", help="The client ID of every row, where FILE is an archive or a folder.")
@click.option("--key", default="key", show_default=True, help="The column of your own keys, if there is one.")
@click.option("--url", help="The service; the one of ROLLOUT_HOST and ROLLOUT_PORT by default.")
@click.option(
    "--token-file",
    type=click.File(),
    help="A file with its token, - for the standard input; ROLLOUT_TOKEN by default. An option would show it to "
    "whoever lists processes.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def predict(
    file: Path,
    out: Path,
    model: str | None,
    client_id: str,
    client: str,
    key: str,
    url: str | None,
    token_file: IO[str] | None,
    *,
    force: bool,
) -> None:
    """Score every row of FILE, which is .csv, .jsonl or .parquet, and write the answers to another such file.

    A column for each input of the model, by its name, and one of client IDs; a line of JSONL may also be an
    instance as the service takes it. Of a model that takes one file, such as an image, FILE may be .tar, .tar.gz,
    .zip or a folder: each file in it is a row with its name as the key, and --client says whose they are. Exit
    code 3: some rows failed, and their answers say why.
    """
    from rollout.job.row import Columns  # noqa: PLC0415
    from rollout.job.sink import check_sink  # noqa: PLC0415  its client takes long to import

    settings = load_settings(token=None if token_file is None else token_file.read().strip())
    check_sink(out, replace=force)
    limit_memory(int(usable_memory() * MEMORY_SHARE))
    job = asyncio.run(
        _run(
            file,
            out,
            model,
            Columns(client_id, key, {}),
            client,
            url or f"http://{settings.host}:{settings.port}",
            settings.token,
        )
    )
    left_out = f"; {job.left_out:,} left out, which are no files" if job.left_out else ""
    say(f"{job}{left_out}; the answers are in {out}")
    if job.failed:
        say(f"rollout: {job.failed:,} of {job.rows:,} rows failed; the first is {job.first}", err=True)
        sys.exit(SOME_ROWS_FAILED)


async def _run(
    file: Path, out: Path, name: str | None, columns: Columns, client: str, url: str, token: str
) -> Job:
    from rollout.bundle.fields import Field  # noqa: PLC0415
    from rollout.heads import read_head  # noqa: PLC0415
    from rollout.job.exchange import Exchange  # noqa: PLC0415
    from rollout.job.sink import columns_of, open_sink  # noqa: PLC0415
    from rollout.job.source import open_source  # noqa: PLC0415

    job = Job()
    async with Exchange(url, token) as exchange:
        model = await exchange.find_model(name)
        try:
            fields = msgspec.convert(model.inputs, dict[str, Field])
            head = read_head(model.task)
        except msgspec.ValidationError as problem:
            raise ConfigError(f"the service has inputs that this version does not know: {problem}") from None
        except BundleError as problem:
            raise ConfigError(f"the service has answers that this version does not know: {problem}") from None
        source = open_source(file, columns._replace(fields=fields), client)
        wanted = columns_of(head)
        with (
            _answers_known(),
            open_sink(out, head) as write,
            make_progress(make_console(stderr=True)) as progress,
        ):
            bar = progress.add_task("", total=source.total)
            async for answered in exchange.predict(model.model, source):
                records = []
                for row, answer in answered:
                    error = row.fault or (answer["detail"] if "status" in answer else None)
                    job.add(error)
                    known: dict[str, Any] = {"client_id": row.client_id, "key": row.key, "error": error}
                    said = {} if error else head.table_row(answer)
                    records.append({name: said.get(name, answer.get(name, known.get(name))) for name in wanted})
                write(records)
                if answered:
                    progress.update(bar, completed=answered[-1][0].position, description=str(job))
        job.left_out = source.left_out()
    return job


@contextmanager
def _answers_known() -> Iterator[None]:
    """Says in a line that the answers of a service are none that its model could give."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as problem:
        raise ConfigError(f"the service has answers that this version does not know: {problem!r}") from None
