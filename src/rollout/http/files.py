"""Predict with a file as the body, with many of them, or with a form that has a part for each input."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.types import Scope

from rollout.bundle.schema import InputSchema
from rollout.errors import LONGEST_TEXT, FieldError, InvalidRequestError, invalid, step_to
from rollout.http.forms import Part, boundary_of, parse_form, parse_mixed
from rollout.http.predict import FileRow, Read, Row, check_count
from rollout.http.routes import JSON, MIXED, MULTIPART
from rollout.inference.rows import ID_LIMIT, is_identifier

IDENTIFIERS = ("client_id", "key")
HEADERS = {b"x-client-id": "client_id", b"x-key": "key"}
PART_HEADERS = {header.decode(): name for header, name in HEADERS.items()}
# What a form may have beside a part for each input, so that one too many is named.
MORE_PARTS = 8
NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def media_types_of(schema: InputSchema) -> Collection[str]:
    """Returns the media types that a body may have, beside JSON, to be a row of a model, or several."""
    if schema.file_field is None:
        return (MULTIPART,)
    return MULTIPART, MIXED, *schema.fields[schema.file_field].media_types


def reader_of(scope: Scope, schema: InputSchema, media_type: str, most: int) -> Read | None:
    """Returns what makes rows of a body that is not read yet; ``None`` for JSON.

    Args:
        scope: Of the request: its query and headers say who asks.
        schema: The model's input schema.
        media_type: Of the body: JSON, or one of ``media_types_of``.
        most: How many rows it may hold.

    Raises:
        MalformedBodyError: If a body of several parts does not say its boundary.
        InvalidRequestError: If an ID does not fit, or two places say different ones.
    """
    if media_type == JSON:
        return None
    said = list(_in_query(scope["query_string"]))
    said += [(HEADERS[name], value) for name, value in scope["headers"] if name in HEADERS]
    identifiers = _agree(said)
    if media_type == MULTIPART:
        boundary = boundary_of(dict(scope["headers"])[b"content-type"])
        return lambda body: ([_row_of_form(body, boundary, schema, identifiers)], True)
    name = schema.file_field
    assert name is not None  # noqa: S101  no other model takes such a body
    if media_type == MIXED:
        if "key" in identifiers:
            raise invalid([FieldError("/key", "is of one row: each part has its own in its header X-Key")])
        boundary = boundary_of(dict(scope["headers"])[b"content-type"])
        return lambda body: (_rows_of_parts(body, boundary, name, identifiers, most), False)
    client_id, key = _require(identifiers)
    return lambda body: ([FileRow(client_id, {name: body}, key)], True)


def _in_query(query: bytes) -> Iterable[tuple[str, bytes]]:
    for pair in filter(None, query.split(b"&")):
        name, _, value = pair.replace(b"+", b" ").partition(b"=")
        if NO_ESCAPE.search(pair):
            raise InvalidRequestError("the query is not percent-encoded: a % is written as %25")
        known = unquote_to_bytes(name).decode("utf-8", "replace")
        if known not in IDENTIFIERS:
            raise InvalidRequestError(f"the query takes client_id and key, not {known[:LONGEST_TEXT]!r}")
        yield known, unquote_to_bytes(value)


def _agree(said: Iterable[tuple[str, bytes]], known: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Returns the IDs by name.

    Raises:
        InvalidRequestError: If one does not fit, or differs from what is known.
    """
    identifiers = dict(known or {})
    errors = []
    for name, value in said:
        text = value.decode("utf-8", "surrogateescape")  # what is no UTF-8 is not printable
        if not is_identifier(text):
            errors.append(FieldError(f"/{name}", f"must be 1 to {ID_LIMIT} printable characters"))
        elif identifiers.setdefault(name, text) != text:
            errors.append(FieldError(f"/{name}", "is said twice, and not the same: say it once"))
    if errors:
        raise invalid(errors)
    return identifiers


def _require(identifiers: Mapping[str, str]) -> tuple[str, str | None]:
    if "client_id" not in identifiers:
        raise invalid(
            [FieldError("/client_id", "is required: in the query, the header X-Client-Id, or a part of a form")]
        )
    return identifiers["client_id"], identifiers.get("key")


def _row_of_form(body: bytes, boundary: bytes, schema: InputSchema, known: Mapping[str, str]) -> Row:
    inputs: dict[str, msgspec.Raw | bytes] = {}
    said: list[tuple[str, bytes]] = []
    errors: list[FieldError] = []
    seen: set[str] = set()
    for part in parse_form(body, boundary, len(schema.fields) + len(IDENTIFIERS) + MORE_PARTS):
        is_input = part.name in schema.fields or part.name not in IDENTIFIERS
        if part.name in seen:
            pointer = "/inputs" if is_input else ""
            errors.append(
                FieldError(f"{pointer}{step_to(part.name)}", "is there twice: send one part for each input")
            )
        elif is_input:
            inputs[part.name] = _value(part, schema)
        else:
            said.append((part.name, part.content))
        seen.add(part.name)
    if errors:
        raise invalid(errors)
    client_id, key = _require(_agree(said, known))
    return FileRow(client_id, inputs, key)


def _rows_of_parts(
    body: bytes, boundary: bytes, field: str, known: Mapping[str, str], most: int
) -> Sequence[Row]:
    """Returns a row for each part: a file, with its IDs in the headers that a request with a file has."""
    parts = parse_mixed(body, boundary, most)
    check_count(len(parts), most)
    rows: list[Row] = []
    errors: list[FieldError] = []
    for number, part in enumerate(parts):
        said = [(name, part.headers[header]) for header, name in PART_HEADERS.items() if header in part.headers]
        try:
            client_id, key = _require(_agree(said, known))
        except InvalidRequestError as error:
            errors += [FieldError(f"/instances/{number}{pointer}", detail) for pointer, detail in error.errors]
        else:
            rows.append(FileRow(client_id, {field: part.content}, key))
    if errors:
        raise invalid(errors)
    return rows


def _value(part: Part, schema: InputSchema) -> msgspec.Raw | bytes:
    """Returns what a part is for its field: a file as it is, everything else as JSON."""
    field = schema.fields.get(part.name)
    if field is None or part.media_type == JSON or not (field.media_types or field.is_text):
        return msgspec.Raw(part.content.strip(b" \t\r\n"))
    if field.media_types:
        return part.content
    try:
        return msgspec.Raw(msgspec.json.encode(part.content.decode()))
    except UnicodeDecodeError:
        raise invalid([FieldError(f"/inputs{step_to(part.name)}", "is not UTF-8")]) from None
