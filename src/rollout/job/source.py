"""The rows of a file, CSV, JSONL or Parquet, or of many files: one after the other, as the service takes them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from rollout.errors import NO_JSON, ConfigError
from rollout.job.files import SUFFIXES, open_files
from rollout.job.row import Columns, Row, Source, encode_line

# Rows of a Parquet file that are in memory at a time.
PARQUET_ROWS = 256
LONGEST_CELL = 64 * 1024 * 1024
# The base64 of such a cell, and its neighbours.
LONGEST_LINE = 2 * LONGEST_CELL


def open_source(file: Path, columns: Columns, client: str = "") -> Source:
    """Opens a file and checks its columns; those of JSONL may differ from line to line.

    Args:
        file: A table, or what holds a file for each row: an archive or a folder.
        columns: What is taken from a table.
        client: The client of all rows, where each is a file; a table has a column of them.

    Raises:
        ConfigError: If it cannot be read, its extension is unknown, a column is missing, or the client is; of
            what stands further on in it, when that is read.
    """
    with _named(file):
        source = _open(file, columns, client)

    def read() -> Iterator[Row]:
        with _named(file):
            yield from source.read()

    return source._replace(read=read)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Says of which file it is that whatever reads it raises: there is no end of that."""
    try:
        yield
    except ConfigError:
        raise
    except MemoryError:
        raise ConfigError(f"cannot read {file}: some of its rows take more memory than they may") from None
    except Exception as error:
        raise ConfigError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None


def _open(file: Path, columns: Columns, client: str) -> Source:
    openers = {".csv": _open_csv, ".jsonl": _open_jsonl, ".ndjson": _open_jsonl, ".parquet": _open_parquet}
    opener = openers.get(file.suffix.lower())
    if file.is_dir() or file.name.lower().endswith(SUFFIXES):
        return open_files(file, columns.fields, client)
    if opener is None:
        known = ", ".join((*openers, *SUFFIXES))
        raise ConfigError(f"{file}: reads {known}, by the extension, and folders of files")
    if client:
        raise ConfigError(f"--client is for files: {file} has a column of client IDs, named by --client-id")
    return opener(file, columns)


def parquet() -> Any:
    """Returns pyarrow's Parquet module.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install 'rollout[batch]'") from None
    return pyarrow.parquet


def _open_csv(file: Path, columns: Columns) -> Source:
    csv.field_size_limit(LONGEST_CELL)

    readers = columns.readers

    def read() -> Iterator[Row]:
        with file.open("rb") as binary:
            lines = _Counted(binary)
            try:
                for cells in csv.DictReader(lines):
                    record = {
                        name: readers[name].read_cell(cell) if name in readers else cell
                        for name, cell in cells.items()
                        if cell is not None
                    }
                    yield _row(record, columns, lines.size)
            except (csv.Error, UnicodeDecodeError) as error:
                raise ConfigError(f"{file}, line {lines.number}: {error}") from None

    with file.open("rb") as binary:
        _require(next(csv.reader(_Counted(binary)), []), columns, file)
    return Source(file.stat().st_size, read)


def _open_jsonl(file: Path, columns: Columns) -> Source:
    def read() -> Iterator[Row]:
        position = 0
        with file.open("rb") as lines:
            while line := lines.readline(LONGEST_LINE):
                position += len(line)
                text = line.strip(b"\xef\xbb\xbf \t\r\n")
                if len(line) == LONGEST_LINE:
                    while len(lines.readline(LONGEST_LINE)) == LONGEST_LINE:
                        pass
                    position = lines.tell()
                    yield Row(None, None, b"{}", position, f"the line is longer than {LONGEST_LINE:,} bytes")
                elif text:
                    yield _row_of_json(text, columns, position)

    with file.open("rb"):
        return Source(file.stat().st_size, read)


def _open_parquet(file: Path, columns: Columns) -> Source:
    def read() -> Iterator[Row]:
        with reader.ParquetFile(file) as opened:
            position = 0
            for batch in opened.iter_batches(PARQUET_ROWS, columns=wanted):
                for record in batch.to_pylist():
                    position += 1
                    yield _row(record, columns, position)

    reader = parquet()
    with reader.ParquetFile(file) as opened:
        names = opened.schema_arrow.names
        _require(names, columns, file)
        wanted = [name for name in (columns.client_id, columns.key, *columns.readers) if name in names]
        return Source(opened.metadata.num_rows, read)


def _require(names: Iterable[str], columns: Columns, file: Path) -> None:
    columns.require(list(names), str(file), "--client-id")


def _row_of_json(text: bytes, columns: Columns, position: int) -> Row:
    """Takes an instance as it is, makes one of anything flatter, and leaves to the service what is no object."""
    try:
        record = msgspec.json.decode(text)
    except NO_JSON:
        record = None
    if not isinstance(record, dict):
        return Row(None, None, text, position)
    if "inputs" in record and "inputs" not in columns.readers:
        client_id, key = record.get("client_id"), record.get("key")
        return Row(
            client_id if isinstance(client_id, str) else None,
            key if isinstance(key, str) else None,
            text,
            position,
        )
    return _row(record, columns, position)


def _row(record: Mapping[str, Any], columns: Columns, position: int) -> Row:
    client_id, key = _identifier(record.get(columns.client_id)), _identifier(record.get(columns.key))
    return Row(client_id, key, encode_line(client_id, key, columns.inputs(record)), position)


def _identifier(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


class _Counted:
    """The lines of a file as text, with how many there were and how many bytes."""

    def __init__(self, binary: IO[bytes]) -> None:
        self._binary = binary
        self.number = self.size = 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> str:
        line = self._binary.readline(LONGEST_LINE)
        if not line:
            raise StopIteration
        if len(line) == LONGEST_LINE:
            raise csv.Error(f"it is longer than {LONGEST_LINE:,} bytes")
        self.number += 1
        self.size += len(line)
        return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
