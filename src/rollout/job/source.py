"""The rows of a file, CSV, JSONL or Parquet: one after the other, as the lines that the service takes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rollout.bundle.fields import Field
from rollout.bundle.wire import WireField
from rollout.errors import ConfigError

# Rows of a Parquet file that are in memory at a time.
PARQUET_ROWS = 256
LONGEST_CELL = 64 * 1024 * 1024

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Row(NamedTuple):
    """One row on its way to the service.

    Attributes:
        client_id: The caller's own ID of the client, if it is one.
        key: The caller's own ID of the prediction, if there is one.
        line: The line to send, without its line feed.
        position: How much of the file was read when this row was, in the unit of ``Source.total``.
    """

    client_id: str | None
    key: str | None
    line: bytes
    position: int


class Columns(NamedTuple):
    """What is taken from a file. Further columns are left out.

    Attributes:
        client_id: The column of client IDs.
        key: The column of keys, which need not be there.
        fields: The inputs of the model. One that is made of parts, as a ``Table`` is, has a column for each of
            them, or one of its own name with objects.
    """

    client_id: str
    key: str
    fields: Mapping[str, Field]

    @property
    def readers(self) -> dict[str, WireField]:
        """What reads a cell, by the column."""
        parts = {name: part for field in self.fields.values() for name, part in field.parts.items()}
        return {**parts, **self.fields}

    def inputs(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the inputs of a row, without what its record does not have."""
        inputs = {}
        for name, field in self.fields.items():
            if field.parts and not isinstance(record.get(name), Mapping):
                inputs[name] = {part: record[part] for part in field.parts if part in record}
            elif name in record:
                inputs[name] = record[name]
        return inputs


class Source(NamedTuple):
    """A file that can be read from the start as often as needed.

    Attributes:
        total: Its size: bytes, or rows of a Parquet file.
        read: Reads it from the start.
    """

    total: int
    read: Callable[[], Iterator[Row]]

    def rows(self, skip: int = 0) -> Iterator[Row]:
        """Reads the rows after the first ``skip``.

        Raises:
            ConfigError: If the file is not what its name says.
        """
        return islice(self.read(), skip, None)


def open_source(file: Path, columns: Columns) -> Source:
    """Opens a file and checks its columns; those of JSONL may differ from line to line.

    Raises:
        ConfigError: If it cannot be read, its extension is unknown or a column is missing.
    """
    openers = {".csv": _open_csv, ".jsonl": _open_jsonl, ".ndjson": _open_jsonl, ".parquet": _open_parquet}
    opener = openers.get(file.suffix.lower())
    if opener is None:
        raise ConfigError(f"{file}: reads {', '.join(openers)}, by the extension")
    try:
        return opener(file, columns)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from None


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

    with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        _require(next(csv.reader(text), []), columns, file)
    return Source(file.stat().st_size, read)


def _open_jsonl(file: Path, columns: Columns) -> Source:
    def read() -> Iterator[Row]:
        position = 0
        with file.open("rb") as lines:
            for line in lines:
                position += len(line)
                text = line.strip(b"\xef\xbb\xbf \t\r\n")
                if text:
                    yield _row_of_json(text, columns, position)

    with file.open("rb"):
        return Source(file.stat().st_size, read)


def _open_parquet(file: Path, columns: Columns) -> Source:
    def open_file() -> Any:
        try:
            return reader.ParquetFile(file)
        except ValueError as error:
            raise ConfigError(f"{file}: {error}") from None

    def read() -> Iterator[Row]:
        with open_file() as opened:
            position = 0
            for batch in opened.iter_batches(PARQUET_ROWS, columns=wanted):
                for record in batch.to_pylist():
                    position += 1
                    yield _row(record, columns, position)

    reader = parquet()
    with open_file() as opened:
        names = opened.schema_arrow.names
        _require(names, columns, file)
        wanted = [name for name in (columns.client_id, columns.key, *columns.readers) if name in names]
        return Source(opened.metadata.num_rows, read)


def _require(names: Iterable[str], columns: Columns, file: Path) -> None:
    names = list(names)
    has = f"it has {', '.join(names) or 'none'}"
    if columns.client_id not in names:
        raise ConfigError(
            f"{file} has no column {columns.client_id}; {has}: --client-id names the one with client IDs"
        )
    for name, field in columns.fields.items():
        parts = {} if name in names else field.parts or {name: field}
        for one, part in parts.items():
            if one not in names:
                kind = f"a column of its input {name}" if field.parts else "an input of the model"
                # Were it left out, a misspelt name would leave all of its values out.
                cell = "" if part.missing is None else "; where a value is missing, its cell is empty"
                raise ConfigError(f"{file} has no column {one}, which is {kind}; {has}{cell}")


def _row_of_json(text: bytes, columns: Columns, position: int) -> Row:
    """Takes an instance as it is, makes one of anything flatter, and leaves to the service what is no object."""
    try:
        record = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
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
    line = _encode({"client_id": client_id or "", "key": key, "inputs": columns.inputs(record)})
    return Row(client_id, key, line, position)


def _identifier(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


class _Counted:
    """The lines of a file as text, with how many there were and how many bytes."""

    def __init__(self, binary: Iterable[bytes]) -> None:
        self._binary = iter(binary)
        self.number = self.size = 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> str:
        line = next(self._binary)
        self.number += 1
        self.size += len(line)
        return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
