"""Answers into a file, CSV, JSONL or Parquet, which is there only when it is whole."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rollout.errors import ConfigError
from rollout.heads import Head
from rollout.job.arrow import answer_columns
from rollout.job.source import parquet
from rollout.whole_file import make_draft

# Rows in a group of a Parquet file; they are in memory until the group is written.
GROUP_ROWS = 4096

Record = dict[str, Any]
Write = Callable[[Sequence[Record]], None]

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


def columns_of(head: Head) -> tuple[str, ...]:
    """Returns the columns of the answers of a head."""
    return ("client_id", "key", "version", "arm", *head.table(), "review", "error")


def check_sink(file: Path, *, replace: bool) -> None:
    """Refuses a file that could not be written in the end.

    Raises:
        ConfigError: If its extension is unknown, its folder is missing or it is there already.
    """
    if file.suffix.lower() not in _WRITERS:
        raise ConfigError(f"--out {file}: writes {', '.join(_WRITERS)}, by the extension")
    if not file.parent.is_dir():
        raise ConfigError(f"--out {file}: there is no folder {file.parent}")
    if file.exists() and not replace:
        raise ConfigError(f"--out {file} is there already; --force replaces it")
    if file.suffix.lower() == ".parquet":
        parquet()


@contextmanager
def open_sink(file: Path, head: Head) -> Iterator[Write]:
    """Opens a file for answers; yields a function that writes the next ones.

    Raises:
        ConfigError: If it cannot be written.
    """
    with until_whole(file) as partial, _WRITERS[file.suffix.lower()](partial, head) as write:
        yield write


@contextmanager
def until_whole(file: Path) -> Iterator[Path]:
    """Yields a file beside ``file`` which takes its place at the end, and is removed if the end is not reached.

    Raises:
        ConfigError: If it cannot be written.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        make_draft(partial)
        yield partial
        partial.replace(file)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _csv(file: Path, head: Head) -> Iterator[Write]:
    columns = columns_of(head)
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        yield lambda records: writer.writerows([_cell(record[name]) for name in columns] for record in records)


@contextmanager
def _jsonl(file: Path, _: Head) -> Iterator[Write]:
    with file.open("wb") as lines:

        def write(records: Sequence[Record]) -> None:
            lines.write(_encode_lines(records))

        yield write


@contextmanager
def _parquet(file: Path, head: Head) -> Iterator[Write]:
    import pyarrow  # noqa: PLC0415

    answers = answer_columns(head)
    types = {**dict.fromkeys(columns_of(head), pyarrow.string()), **answers.types}
    schema = pyarrow.schema(list(types.items()))
    waiting: list[Record] = []

    def flush() -> None:
        writer.write_table(pyarrow.Table.from_pylist([answers.encode(one) for one in waiting], schema))
        waiting.clear()

    def write(records: Sequence[Record]) -> None:
        waiting.extend(records)
        if len(waiting) >= GROUP_ROWS:
            flush()

    with parquet().ParquetWriter(file, schema) as writer:
        yield write
        flush()


def _cell(value: object) -> object:
    return _encode(value).decode() if isinstance(value, dict | list) else value


_WRITERS: dict[str, Callable[[Path, Head], AbstractContextManager[Write]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
