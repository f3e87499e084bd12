"""Reviewed labels into a file or a pipe, in the formats that training, notebooks and Label Studio read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from rollout.errors import NO_JSON, ConfigError
from rollout.job.sink import GROUP_ROWS, until_whole
from rollout.job.source import parquet
from rollout.review.export import ExportRow, encode_row
from rollout.review.label_studio import read_tasks
from rollout.review.labels import Fault, Label, read_lines

Task = dict[str, Any]
Format = Literal["jsonl", "parquet", "label-studio"]
EXTENSIONS: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".json": "label-studio",
}
# Bytes of rows that wait at most until they are written as a group of a Parquet file.
GROUP_BYTES = 32 * 1024 * 1024
# What is nested is JSON in Parquet.
NESTED = ("inputs", "predicted", "other", "outcome", "lineage")
FORMS = ("labels", "values", "vector", "tensors", "spans", "boxes", "heads")

_encode = msgspec.json.Encoder().encode


def choose_format(out: Path | None, asked: Format | None, *, replace: bool) -> Format:
    """Returns the format to write: the one asked for, or the one of the file's extension.

    Raises:
        ConfigError: If the two differ, or the file could not be written in the end.
    """
    if out is None:
        if asked == "parquet":
            raise ConfigError("Parquet needs a file: name one with --out FILE.parquet")
        return asked or "jsonl"
    known = EXTENSIONS.get(out.suffix.lower())
    if known is None and asked is None:
        raise ConfigError(f"--out {out}: writes {', '.join(EXTENSIONS)}, by the extension, or what --format says")
    if known is not None and asked is not None and known != asked:
        raise ConfigError(f"--out {out} is named like {known}, but --format says {asked}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder: name a file")
    if out.exists() and not replace:
        raise ConfigError(f"--out {out} is there already; --force replaces it")
    chosen: Format = asked or known or "jsonl"
    if chosen == "parquet":
        parquet()
    return chosen


@contextmanager
def open_rows(out: Path | None, pipe: BinaryIO, chosen: Format) -> Iterator[Callable[[ExportRow], None]]:
    """Yields a function that writes the next row; the file is there only when it is whole.

    Args:
        out: The file; ``None`` for the pipe.
        pipe: Where the rows go without a file.
        chosen: ``jsonl``, or ``parquet`` into a file.

    Raises:
        ConfigError: If it cannot be written.
    """
    if out is None:
        yield lambda row: _write_line(pipe, row)
        pipe.flush()
        return
    with until_whole(out) as partial:
        if chosen == "parquet":
            with _open_parquet(partial) as write:
                yield write
        else:
            with partial.open("wb") as lines:
                yield lambda row: _write_line(lines, row)


@contextmanager
def open_tasks(out: Path | None, pipe: BinaryIO) -> Iterator[Callable[[Task], None]]:
    """Yields a function that writes the next task of Label Studio; likewise.

    Raises:
        ConfigError: If it cannot be written.
    """
    if out is None:
        with _open_list(pipe) as write:
            yield write
        pipe.flush()
        return
    with until_whole(out) as partial, partial.open("wb") as file, _open_list(file) as write:
        yield write


def _write_line(file: BinaryIO, row: ExportRow) -> None:
    file.write(encode_row(row) + b"\n")


@contextmanager
def _open_list(file: BinaryIO) -> Iterator[Callable[[Task], None]]:
    before = b"["

    def write(task: Task) -> None:
        nonlocal before
        file.write(before + b"\n" + _encode(task))
        before = b","

    yield write
    file.write(b"[]\n" if before == b"[" else b"\n]\n")


@contextmanager
def _open_parquet(file: Path) -> Iterator[Callable[[ExportRow], None]]:
    import pyarrow  # noqa: PLC0415

    types = dict.fromkeys(ExportRow.__struct_fields__, pyarrow.string())
    types |= dict.fromkeys(("value", "agreement", "pi", "threshold"), pyarrow.float64())
    types |= dict.fromkeys(("revision", "cursor"), pyarrow.int64())
    names = pyarrow.list_(pyarrow.string())
    types |= {"retracted": pyarrow.bool_(), "reviewers": names, "explained": names}
    schema = pyarrow.schema(list(types.items()))
    waiting: list[dict[str, Any]] = []
    size = 0

    def flush() -> None:
        nonlocal size
        writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
        waiting.clear()
        size = 0

    def write(row: ExportRow) -> None:
        nonlocal size
        record = msgspec.structs.asdict(row)
        for name in (*NESTED, *FORMS):
            text = _encode(record[name]).decode()
            record[name] = None if text == "null" else text
            size += len(text)
        waiting.append(record)
        if len(waiting) >= GROUP_ROWS or size >= GROUP_BYTES:
            flush()

    with parquet().ParquetWriter(file, schema) as writer:
        yield write
        flush()


@contextmanager
def open_labels(file: Path, asked: str | None) -> Iterator[Iterator[Label | Fault]]:
    """Opens a file of labels made elsewhere: JSON lines, or a list in JSON as Label Studio exports it.

    Args:
        file: The file.
        asked: ``jsonl`` or ``label-studio``; what the file begins with tells where it is ``None``.

    Raises:
        ConfigError: If it cannot be read, or is neither.
    """
    try:
        with file.open("rb") as lines:
            first = lines.read(64 * 1024).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            lines.seek(0)
            chosen = asked or {b"{": "jsonl", b"[": "label-studio"}.get(first)
            if chosen is None:
                raise ConfigError(
                    f"{file} is neither JSON lines nor a list in JSON: --format says what it is meant to be"
                )
            yield read_lines(lines) if chosen == "jsonl" else read_tasks(lines.read())
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from None
    except NO_JSON as error:
        raise ConfigError(f"{file} is not what Label Studio exports as JSON: {error}") from None
