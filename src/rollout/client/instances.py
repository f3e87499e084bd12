"""Rows of any form as instances: a sequence, a mapping of columns, or a DataFrame, which has columns, too."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import msgspec

from rollout.client.values import cells, plain

JSON, FILE = "application/json", "application/octet-stream"
CLIENT_ID, KEY = "client_id", "key"
# Around the instances of a request.
BEFORE, BETWEEN, AFTER = b'{"instances":[', b",", b"]}"

_encode = msgspec.json.Encoder().encode


class Instance(msgspec.Struct, frozen=True):
    """One row.

    Attributes:
        client_id: Your own ID of the client.
        inputs: A value for each input of the model.
        key: Your own ID of this prediction, by which its outcome is reported and reviews are joined.
    """

    client_id: str
    inputs: Mapping[str, Any]
    key: str | None = None


def encode_instance(instance: Instance, pointer: str = "") -> bytes:
    """Returns an instance as JSON.

    Args:
        instance: The row.
        pointer: JSON pointer to it, for errors.

    Raises:
        ValueError: If a value is none that the service takes.
        TypeError: If a value, or an ID, is of a type that it cannot be.
        OSError: If a file cannot be read.
    """
    return _encode({**_ids(instance, pointer), "inputs": plain(instance.inputs, f"{pointer}/inputs")})


def encode_alone(instance: Instance) -> tuple[bytes, str]:
    """Returns the body of one row and its media type: a form where a file is in it, which needs no base64 there.

    Args:
        instance: The row.

    Raises:
        ValueError: If a value is none that the service takes.
        TypeError: If a value, or an ID, is of a type that it cannot be.
        OSError: If a file cannot be read.
    """
    ids, inputs = _ids(instance, ""), plain(instance.inputs, "/inputs")
    is_form = any(isinstance(value, bytes) for value in inputs.values())
    if not is_form or ids.keys() & inputs or not all(name.isidentifier() and name.isascii() for name in inputs):
        return _encode({**ids, "inputs": inputs}), JSON
    boundary = secrets.token_hex(16).encode()
    parts = [(name, "text/plain", value.encode()) for name, value in ids.items()]
    parts += [
        (name, FILE, value) if isinstance(value, bytes) else (name, JSON, _encode(value))
        for name, value in inputs.items()
    ]
    body = b"".join(b"--%b\r\n%b\r\n%b\r\n" % (boundary, _head(*part[:2]), part[2]) for part in parts)
    return body + b"--%b--\r\n" % boundary, f"multipart/form-data; boundary={boundary.decode()}"


def identifier(value: Any, pointer: str) -> str:
    """Returns an ID as a text; a whole number counts as its digits.

    Raises:
        TypeError: If it is neither.
    """
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{pointer} is a {type(value).__name__}: an ID is a text or a whole number")


def read_instances(
    rows: Any, client_id: Any = None, key: Any = None, fields: Mapping[str, Any] | None = None
) -> Iterator[Instance]:
    """Yields the rows of what a caller has, in their order.

    Args:
        rows: A DataFrame of pandas or polars, an Arrow table or a mapping of columns; or an iterable of instances
            or, with ``client_id``, of inputs.
        client_id: The client of all rows, or one for each; without it, rows have it themselves, columns as the
            column ``client_id``.
        key: A key for each row; without it, rows have it themselves if they have one, columns as the column
            ``key``.
        fields: The model's inputs as the service describes them, for columns: each is a column, a table its own
            ones. Further columns are left out.

    Raises:
        ValueError: If columns, IDs or keys are not of one length, or one is lacking.
        TypeError: If a row is none.
    """
    columns = columns_of(rows)
    if columns is None:
        clients = None if client_id is None else _each(client_id)
        yield from _from_rows(rows, clients, None if key is None else cells(key))
        return
    if client_id is None:
        client_id = _column(columns, CLIENT_ID)
    if key is None and KEY in columns:
        key = columns[KEY]
    parts = {name: _parts(name, field, columns) for name, field in (fields or {}).items()}
    values = {name: cells(_column(columns, name)) for name in chain.from_iterable(parts.values())}
    clients, keys = _each(client_id), repeat(None) if key is None else cells(key)
    lengths = {len(one) for one in (*values.values(), clients, keys) if isinstance(one, Sequence)}
    if len(lengths) > 1:
        raise ValueError(f"columns, client IDs and keys have different lengths: {sorted(lengths)}")
    for own_id, own_key, *row in zip(clients, keys, *values.values(), strict=False):
        cell = dict(zip(values, row, strict=True))
        inputs = {
            name: cell[name] if own == [name] else {part: cell[part] for part in own}
            for name, own in parts.items()
        }
        yield Instance(own_id, inputs, own_key)


def _ids(instance: Instance, pointer: str) -> dict[str, str]:
    ids = {CLIENT_ID: identifier(instance.client_id, f"{pointer}/client_id")}
    if instance.key is not None:
        ids[KEY] = identifier(instance.key, f"{pointer}/key")
    return ids


def _head(name: str, media_type: str) -> bytes:
    said = f'Content-Disposition: form-data; name="{name}"\r\nContent-Type: {media_type}\r\n'
    return said.encode()


def has_columns(rows: Any) -> bool:
    """Whether rows come as columns."""
    return columns_of(rows) is not None


def columns_of(rows: Any) -> dict[str, Any] | None:
    """Returns columns by their names; ``None`` where there are none, but rows."""
    if isinstance(rows, Mapping):
        return {str(name): column for name, column in rows.items()}
    names = getattr(rows, "column_names", None)  # of Arrow, whose ``columns`` are the arrays
    if names is None:
        names = getattr(rows, "columns", None)
    return None if names is None else {str(name): rows[name] for name in names}


def pack_instances(
    encoded: Iterable[bytes], most_rows: int, most_bytes: int
) -> Iterator[tuple[int, list[bytes]]]:
    """Yields rows that go together, with the number of the first of them.

    Args:
        encoded: Rows as JSON.
        most_rows: How many go together.
        most_bytes: How large a body may be; a row that is larger goes alone.
    """
    first, some, size = 0, list[bytes](), len(BEFORE + AFTER)
    for row in encoded:
        if some and (len(some) == most_rows or size + len(row) > most_bytes):
            yield first, some
            first, some, size = first + len(some), [], len(BEFORE + AFTER)
        some.append(row)
        size += len(row) + len(BETWEEN)
    if some:
        yield first, some


def body_of(some: list[bytes]) -> bytes:
    """Returns the body of a request with these rows."""
    return BEFORE + BETWEEN.join(some) + AFTER


def _parts(name: str, field: Mapping[str, Any], columns: Mapping[str, Any]) -> list[str]:
    """Returns the columns that an input is made of: one of its name, or those of a table."""
    return list(field["columns"]) if field.get("kind") == "table" and name not in columns else [name]


def _column(columns: Mapping[str, Any], name: str) -> Any:
    if name not in columns:
        instead = ", or give the argument client_id" if name == CLIENT_ID else ""
        raise ValueError(f"there is no column {name}: add it{instead}; there are {', '.join(columns)}")
    return columns[name]


def _each(client_id: Any) -> Iterable[Any]:
    return repeat(client_id) if isinstance(client_id, str | int) else cells(client_id)


def _from_rows(rows: Iterable[Any], clients: Iterable[Any] | None, keys: list[Any] | None) -> Iterator[Instance]:
    given = iter(clients) if clients is not None else None
    count = 0
    for count, row in enumerate(rows, 1):
        try:
            own_key = keys[count - 1] if keys is not None else None
            client_id = next(given) if given is not None else None
        except (IndexError, StopIteration):
            raise ValueError(f"there are fewer client IDs or keys than rows: row {count} has none") from None
        if client_id is not None:
            yield Instance(client_id, row, own_key)
            continue
        instance = row if isinstance(row, Instance) else _from_mapping(row, count)
        yield instance if own_key is None else msgspec.structs.replace(instance, key=own_key)
    if (keys is not None and len(keys) > count) or (isinstance(clients, list) and len(clients) > count):
        raise ValueError(f"there are more client IDs or keys than the {count} rows")


def _from_mapping(row: Any, count: int) -> Instance:
    try:
        return Instance(**row)
    except TypeError:
        raise TypeError(
            f"row {count} is no instance: give an Instance, or a mapping with client_id, inputs and perhaps key; "
            "or give the argument client_id, and rows that are inputs"
        ) from None
