"""Forms that are taken apart: as clients send them, as nobody should, and as attackers make them."""

from __future__ import annotations

import time

import pytest

from rollout.errors import MalformedBodyError
from rollout.http.forms import LONGEST_HEAD, Part, boundary_of, parse_form

HEAD = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
END = b"\r\n--b--\r\n"


def with_head(*lines: bytes) -> bytes:
    return b"\r\n".join((b"--b", *lines, b"", b"hi")) + END


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (HEAD + b"hi" + END, [Part("x", "text/plain", b"hi")]),
        (b"\r\n" + HEAD + b"hi" + END[:-2], [Part("x", "text/plain", b"hi")]),
        (HEAD + END, [Part("x", "text/plain", b"")]),
        (HEAD + b"--\r\n\r\n\n--b" + END, [Part("x", "text/plain", b"--\r\n\r\n\n--b")]),
        (b"--b--", []),
        (
            b"--b  \r\ncontent-DISPOSITION:form-data;filename=a;NAME=x\r\ncontent-type: Image/PNG; a=b\r\n\r\nhi"
            + END,
            [Part("x", "image/png", b"hi")],
        ),
        (
            with_head(
                b'Content-Disposition: form-data; name="x"; filename="../../etc/\\"pass;wd\xc3\xa9"; filename*=UTF-8\'\'%00',
                b"Content-Type: text/plain; charset=UTF-8",
                b"Content-Transfer-Encoding: binary",
            ),
            [Part("x", "text/plain", b"hi")],
        ),
        (HEAD + b"1\r\n" + HEAD + b"2" + END, [Part("x", "text/plain", b"1"), Part("x", "text/plain", b"2")]),
    ],
)
def test_what_clients_send(body: bytes, parts: list[Part]) -> None:
    assert parse_form(body, b"b", 2) == parts


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "does not begin with the boundary"),
        (b"preamble\r\n" + HEAD + END, "does not begin with the boundary"),
        (HEAD + b"hi", "ends before its last boundary"),
        (HEAD + b"hi\r\n--b", "ends before its last boundary"),
        (HEAD + b"hi" + END + b"epilogue", "goes on behind its last boundary"),
        (HEAD + b"hi" + END + END, "goes on behind its last boundary"),
        (HEAD + b"hi\r\n--bX" + END, "part 2 of the form has headers without an end"),
        (HEAD + b"\r\n--bX\r\nA: b\r\n\r\n" + END, "part 2 of the form has the boundary within it"),
        ((HEAD + b"\r\n") * 3 + b"--b--", "more than 2 parts"),
        (b"--b\r\nno end", "ends before"),
        (b"--b\r\nA: b\r\n" + END, "part 1 of the form has headers without an end"),
        (with_head(b"A: " + b"x" * LONGEST_HEAD), f"of more than {LONGEST_HEAD:,} bytes"),
        (with_head(b"A: b"), "no header Content-Disposition"),
        (with_head(b"Content-Disposition: attachment; name=x"), "no header Content-Disposition"),
        (with_head(b"Content-Disposition: form-data; filename=x"), "no header Content-Disposition"),
        (with_head(b"Content-Disposition: form-data; name=x; name=y"), "a parameter is there twice"),
        (with_head(b'Content-Disposition: form-data; name="x'), "cannot be read"),
        (with_head(b"Content-Disposition: form-data; name=x", b"content-disposition: form-data"), "twice"),
        (with_head(b"Content-Disposition: form-data;", b" name=x"), "a header that is none"),
        (with_head(b"Content-Disposition : form-data; name=x"), "a header that is none"),
        (with_head(b"Content-Disposition: form-data; name=x", b"Content-Type: /"), "cannot be read"),
        (with_head(b"Content-Disposition: form-data; name=x", b"Content-Type: a/b; charset=latin-1"), "UTF-8"),
        (
            with_head(b"Content-Disposition: form-data; name=x", b"Content-Transfer-Encoding: base64"),
            "as they are",
        ),
    ],
)
def test_what_is_no_form_is_refused_in_a_sentence(body: bytes, words: str) -> None:
    with pytest.raises(MalformedBodyError, match=words):
        parse_form(body, b"b", 2)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (
            b"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            b"----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
        (b'Multipart/Form-Data;charset=utf-8;Boundary="=_a b"', b"=_a b"),
        (b"multipart/form-data; boundary=----=_Part_1_2.3", b"----=_Part_1_2.3"),
        (b"multipart/form-data", None),
        (b"multipart/form-data; boundary=", None),
        (b'multipart/form-data; boundary="a "', None),
        (b"multipart/form-data; boundary=a; boundary=a", None),
        (b"multipart/form-data; boundary=" + b"a" * 71, None),
        (b'multipart/form-data; boundary="\xe9"', None),
    ],
)
def test_boundaries(content_type: bytes, boundary: bytes | None) -> None:
    if boundary is None:
        with pytest.raises(MalformedBodyError, match="says its boundary, once"):
            boundary_of(content_type)
    else:
        assert boundary_of(content_type) == boundary


def test_no_form_costs_more_than_its_bytes() -> None:
    size = 8 * 1024 * 1024
    started = time.process_time()
    for body in (
        HEAD + b"\r\n--bX" * (size // 6),
        HEAD + b"\r\n--b" + b" " * size,
        HEAD + b"\r" * size,
        HEAD + b"\r\n--b--" + b"\r\n" * (size // 2) + b".",
        with_head(b'Content-Disposition: form-data; name="' + b"\\a" * 4000),
        with_head(b"Content-Disposition: form-data" + b";a=b" * 2000 + b"@"),
        with_head(b"Content-Disposition: form-data" + b" " * 8000 + b"@"),
    ):
        with pytest.raises(MalformedBodyError):
            parse_form(body, b"b", 20)
    for rest in (
        b'; boundary="' + b"\\a" * 30_000,
        b" " * 60_000 + b"@",
        b";a=b" * 15_000 + b"@",
        b"a" * 60_000 + b"@",
    ):
        with pytest.raises(MalformedBodyError):
            boundary_of(b"multipart/form-data" + rest)
    assert time.process_time() - started < 1, "a parser that walks through them takes three seconds for each"
