"""A row on its way to the service, and where rows come from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from rollout.bundle.fields import Field
from rollout.bundle.wire import WireField
from rollout.errors import ConfigError

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Row(NamedTuple):
    """One row on its way to the service.

    Attributes:
        client_id: The caller's own ID of the client, if it is one.
        key: The caller's own ID of the prediction, if there is one.
        line: The line to send, without its line feed.
        position: How much of the file was read when this row was, in the unit of ``Source.total``.
        fault: Why it cannot be scored, if it cannot; the line in its place is one that the service refuses.
    """

    client_id: str | None
    key: str | None
    line: bytes
    position: int
    fault: str | None = None


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

    def require(self, there: Collection[str], table: str, option: str) -> None:
        """Refuses a table that lacks a column.

        Args:
            there: The columns that it has.
            table: What it is called.
            option: What names the column of client IDs.

        Raises:
            ConfigError: If one is missing.
        """
        has = f"it has {', '.join(there) or 'none'}"
        if self.client_id not in there:
            raise ConfigError(
                f"{table} has no column {self.client_id}; {has}: {option} names the one with client IDs"
            )
        for name, field in self.fields.items():
            parts = {} if name in there else field.parts or {name: field}
            for one, part in parts.items():
                if one not in there:
                    kind = f"a column of its input {name}" if field.parts else "an input of the model"
                    # Were it left out, a misspelt name would leave all of its values out.
                    cell = "" if part.missing is None else "; where a value is missing, its cell is empty"
                    raise ConfigError(f"{table} has no column {one}, which is {kind}; {has}{cell}")

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
        total: Its size: bytes, or rows of a Parquet file, or files of a folder.
        read: Reads it from the start.
        left_out: Says how much of what was read so far is not a row.
    """

    total: int
    read: Callable[[], Iterator[Row]]
    left_out: Callable[[], int] = lambda: 0

    def rows(self, skip: int = 0) -> Iterator[Row]:
        """Reads the rows after the first ``skip``.

        Raises:
            ConfigError: If the file is not what its name says.
        """
        return islice(self.read(), skip, None)


def encode_line(client_id: str | None, key: str | None, inputs: Mapping[str, Any]) -> bytes:
    """Returns an instance as a line; bytes among its inputs are in base64."""
    return _encode({"client_id": client_id or "", "key": key, "inputs": inputs})
