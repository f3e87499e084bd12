"""Bodies of ``multipart/form-data`` (RFC 7578), taken apart strictly, and in one step for all of their bytes.

A parser that walks from byte to byte takes seconds for 8 MiB that were made for it. Here the body is split once,
into no more parts than may be there, and only what lies before a part's content is looked at.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rollout.errors import MalformedBodyError

LONGEST_BOUNDARY = 70  # RFC 2046, section 5.1.1
# The headers of a part, in bytes: each character of a file's name may take nine.
LONGEST_HEAD = 8192
NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # a token (RFC 9110, section 5.6.2)
PARAMETER = rf'[ \t]*;[ \t]*({NAME})=(?:([^\s;"\\]+)|"((?:[^"\\\r\n\0]|\\.)*)")'
HEADER_NAME = re.compile(NAME)
VALUE = re.compile(rf"({NAME}(?:/{NAME})?)((?:{PARAMETER})*)")
PARAMETERS = re.compile(PARAMETER)
BOUNDARY = re.compile(rf"[0-9A-Za-z'()+_,./:=?\- ]{{0,{LONGEST_BOUNDARY - 1}}}[0-9A-Za-z'()+_,./:=?\-]")
UTF_8 = frozenset({"utf-8", "utf8", "us-ascii"})
AS_IT_IS = frozenset({"7bit", "8bit", "binary"})


class Part(NamedTuple):
    """One part of a form. What its file was called, nothing here depends on.

    Attributes:
        name: Its name.
        media_type: What it says that it is; ``text/plain`` where it says nothing.
        content: Its bytes.
    """

    name: str
    media_type: str
    content: bytes


def boundary_of(content_type: bytes) -> bytes:
    """Returns what separates the parts of a form.

    Args:
        content_type: The header ``Content-Type``.

    Raises:
        MalformedBodyError: If it says none, or one that is none.
    """
    try:
        boundary = _parse(content_type.decode("latin-1"))[1].get("boundary", "")
    except ValueError:
        boundary = ""
    if not BOUNDARY.fullmatch(boundary):
        raise MalformedBodyError(
            "the Content-Type of a form says its boundary, once, of at most 70 characters: leave that header to "
            "the HTTP client"
        )
    return boundary.encode("ascii")


def parse_form(body: bytes, boundary: bytes, most: int) -> list[Part]:
    """Takes a form apart.

    Args:
        body: All of it.
        boundary: What separates its parts.
        most: How many parts it may have.

    Raises:
        MalformedBodyError: If it is no form, not whole, or has more parts.
    """
    delimiter = b"--" + boundary
    body = body.removeprefix(b"\r\n")
    if not body.startswith(delimiter):
        raise MalformedBodyError("the form does not begin with the boundary that its Content-Type says")
    first, *more = body.split(b"\r\n" + delimiter, most + 1)
    *pieces, end = first[len(delimiter) :], *more
    if len(pieces) > most:
        raise MalformedBodyError(f"the form has more than {most} parts: send one for each input")
    if not end.startswith(b"--"):
        raise MalformedBodyError("the form ends before its last boundary: send all of it")
    if end[2:].strip(b" \t\r\n") or any(piece.startswith(b"--") for piece in pieces):
        raise MalformedBodyError("the form goes on behind its last boundary: end it there")
    return [_parse_part(piece, number) for number, piece in enumerate(pieces, 1)]


def _parse_part(piece: bytes, number: int) -> Part:
    end = piece.find(b"\r\n\r\n", 0, LONGEST_HEAD)
    if end < 0:
        raise _malformed(number, f"has headers without an end, or of more than {LONGEST_HEAD:,} bytes")
    padding, *lines = piece[:end].split(b"\r\n")
    if padding.strip(b" \t"):
        raise _malformed(number, "has the boundary within it: choose one that is not in any part")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if not colon or not HEADER_NAME.fullmatch(name) or name.lower() in headers:
            raise _malformed(number, "has a header that is none, or is there twice")
        headers[name.lower()] = value
    try:
        disposition, named = _parse(headers.get("content-disposition", ""))
        media_type, said = _parse(headers.get("content-type", "text/plain"))
    except ValueError as error:
        raise _malformed(number, f"has a header that cannot be read: {error}") from None
    if disposition != "form-data" or "name" not in named:
        raise _malformed(number, 'has no header Content-Disposition: form-data; name="…"')
    if said.get("charset", "utf-8").lower() not in UTF_8:
        raise _malformed(number, "is in another charset: send texts in UTF-8")
    if headers.get("content-transfer-encoding", "binary").strip().lower() not in AS_IT_IS:
        raise _malformed(number, "has a Content-Transfer-Encoding: send its bytes as they are")
    return Part(named["name"], media_type, piece[end + 4 :])


def _parse(value: str) -> tuple[str, dict[str, str]]:
    """Takes the value of a header apart: what it says, in lower case, and its parameters.

    Raises:
        ValueError: If it is of another form, or a parameter is there twice.
    """
    value = value.strip(" \t;")
    if not value:
        return "", {}
    found = VALUE.fullmatch(value)
    if found is None:
        raise ValueError("it is not 'value; name=value'")
    parameters: dict[str, str] = {}
    for name, plain, quoted in PARAMETERS.findall(found[2]):
        if name.lower() in parameters:
            raise ValueError("a parameter is there twice")
        parameters[name.lower()] = plain or re.sub(r"\\(.)", r"\1", quoted)
    return found[1].lower(), parameters


def _malformed(number: int, what: str) -> MalformedBodyError:
    return MalformedBodyError(f"part {number} of the form {what}")
