"""Answers into a file, CSV, JSONL or Parquet, which is there only when it is whole."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rollout.bundle.task import Classification, Task
from rollout.errors import ConfigError
from rollout.job.source import parquet

# Rows in a group of a Parquet file; they are in memory until the group is written.
GROUP_ROWS = 4096

Record = dict[str, Any]
Write = Callable[[Sequence[Record]], None]

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


def columns_of(task: Task) -> tuple[str, ...]:
    """Returns the columns of the answers to a task."""
    answer = ("label", "confidence", "scores") if isinstance(task, Classification) else ("value", "interval")
    return ("client_id", "key", "version", "arm", *answer, "review", "error")


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
def open_sink(file: Path, task: Task) -> Iterator[Write]:
    """Opens a file for answers; yields a function that writes the next ones.

    Raises:
        ConfigError: If it cannot be written.
    """
    with until_whole(file) as partial, _WRITERS[file.suffix.lower()](partial, task) as write:
        yield write


@contextmanager
def until_whole(file: Path) -> Iterator[Path]:
    """Yields a file beside ``file`` which takes its place at the end, and is removed if the end is not reached.

    Raises:
        ConfigError: If it cannot be written.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        partial.replace(file)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _csv(file: Path, task: Task) -> Iterator[Write]:
    columns = columns_of(task)
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        yield lambda records: writer.writerows([_cell(record[name]) for name in columns] for record in records)


@contextmanager
def _jsonl(file: Path, _: Task) -> Iterator[Write]:
    with file.open("wb") as lines:

        def write(records: Sequence[Record]) -> None:
            lines.write(_encode_lines(records))

        yield write


@contextmanager
def _parquet(file: Path, task: Task) -> Iterator[Write]:
    import pyarrow  # noqa: PLC0415

    text, number = pyarrow.string(), pyarrow.float64()
    types = dict.fromkeys(columns_of(task), text) | {"confidence": number, "value": number}
    if isinstance(task, Classification):
        types["scores"] = pyarrow.struct([(label, number) for label in task.labels])
    types["interval"] = pyarrow.list_(number)
    schema = pyarrow.schema([(name, types[name]) for name in columns_of(task)])
    waiting: list[Record] = []

    def flush() -> None:
        writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
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


_WRITERS: dict[str, Callable[[Path, Task], AbstractContextManager[Write]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
