"""The codec: its quick way and its strict way agree, and what is wrong is said."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout import Category, Image, Number, Tensor, Text, Time
from rollout.bundle.codec import Codec, CodecError, located, split_location
from rollout.bundle.fields import Field

FIELDS: list[Field] = [
    Image(height=2, width=3),
    Image(height=1, width=2, channels=3),
    Tensor(shape=(2, 3)),
    Tensor(shape=(3,), minimum=-1, maximum=2.5),
    Tensor(shape=(2,), dtype="int64", minimum=-7),
    Tensor(shape=(1, 1, 2), dtype="uint8", maximum=9),
    Tensor(shape=(), dtype="float32"),
    Tensor(shape=("steps",), longest=3, dtype="int64"),
    Tensor(shape=("steps", 2), longest=2, maximum=8),
    Number(minimum=0, maximum=9),
    Text(max_bytes=4),
    Category(values=("a", "bc")),
    Time(),
]

numbers = st.one_of(
    st.integers(-300, 300), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    st.one_of(numbers, st.booleans(), st.none(), st.text(max_size=3)),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=9,
)


def strict(field: Field, raw: bytes) -> np.ndarray[Any, Any] | None:
    """What the strict parser alone makes of it."""
    try:
        return field.decode(msgspec.json.decode(raw, type=field.wire_type))
    except ValueError:
        return None


def shaped(field: Field) -> st.SearchStrategy[Any]:
    """Values of about the right shape, now and then with something odd in them."""
    element: st.SearchStrategy[Any] = st.one_of(
        st.integers(0, 9), st.integers(0, 9), st.floats(0, 2), numbers, st.booleans()
    )
    for size in reversed(field.step_shape):
        element = st.lists(element, min_size=size, max_size=size)
    return st.lists(element, max_size=field.free.longest + 1) if field.free else element


@pytest.mark.parametrize("field", FIELDS, ids=str)
@given(data=st.data())
def test_both_ways_agree(field: Field, data: st.DataObject) -> None:
    value = data.draw(st.one_of(shaped(field), shaped(field), values))
    raw = msgspec.json.encode(value)
    expected = strict(field, raw)
    if expected is None:
        with pytest.raises(CodecError):
            Codec(field).decode(raw)
    else:
        decoded = Codec(field).decode(raw)
        if field.free:
            decoded, expected = decoded[()], expected[()]
        assert decoded.dtype == expected.dtype == field.dtype
        assert decoded.shape == expected.shape
        assert decoded.shape[1:] == field.step_shape if field.free else decoded.shape == field.shape
        assert np.array_equal(decoded, expected)


@pytest.mark.parametrize(
    "raw",
    [
        b"[1 2,3]",
        b"[01,2]",
        b"[+1,2]",
        b"[1,2.]",
        b"[1e,2]",
        b"[.5,1]",
        b"[--1,2]",
        b"[1,2",
        b"[,]",
        b"[1,]",
        b"[ ,1]",
        b"",
    ],
)
def test_numbers_that_are_not_json_are_refused(raw: bytes) -> None:
    for field in (Tensor(shape=(2,)), Tensor(shape=(2,), dtype="int64")):
        with pytest.raises(CodecError):
            Codec(field).decode(raw)


def test_white_space_is_no_fault() -> None:
    assert Codec(Tensor(shape=(2, 1))).decode(b" [ [ 1 ],\n\t[ 2.5e0 ] ] ").tolist() == [[1], [2.5]]


def test_the_strict_parser_is_not_needed_for_plain_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "decode", lambda *_: pytest.fail("a Python object for each pixel"))
    assert Codec(Image(height=1, width=2)).decode(b"[[7, 255]]").tolist() == [[7, 255]]


def test_errors_say_what_would_be_right() -> None:
    with pytest.raises(CodecError, match="2×2 nested lists of whole numbers from 0 to 255, or a PNG") as caught:
        Codec(Image(height=2, width=2)).decode(b"[[1,2],[3,999]]")
    assert [pointer for pointer, _ in caught.value.errors] == ["/1/1"]


def test_only_files_are_slow() -> None:
    codec = Codec(Image(height=2, width=2))
    assert codec.is_slow(b'"iVBOR"')
    assert not codec.is_slow(b"[[1,2],[3,4]]")


def test_locations_become_pointers() -> None:
    assert split_location(msgspec.ValidationError("Expected `int` - at `$.a[3].b`")) == ("expected int", "/a/3/b")
    assert split_location(msgspec.ValidationError("Expected `object`")) == ("expected object", "")


@pytest.mark.parametrize(
    ("field", "raw", "words"),
    [
        (
            Text(max_bytes=3),
            b'"abcd"',
            "expected str of length <= 3; it must be a text of at most 3 bytes in UTF-8",
        ),
        (
            Text(max_bytes=3),
            '"éé"'.encode(),
            "the text has 4 bytes in UTF-8; it must be a text of at most 3 bytes",
        ),
        (Text(), b'"a\\u0000"', "the text holds a NUL character; leave it out"),
        (Category(values=("a", "b")), b'"c"', "invalid enum value 'c'; it must be one of a, b"),
        (
            Time(),
            b'"2026-11-05T10:00:00"',
            "with a timezone component; it must be a time in ISO 8601 with its zone",
        ),
        (
            Number(minimum=0, maximum=5),
            b"5.5",
            "expected float <= 5.0; it must be a number, at least 0, at most 5",
        ),
        (Number(), b"1e39", "every number must fit a finite float32"),
    ],
)
def test_errors_of_single_values_say_what_would_be_right(field: Field, raw: bytes, words: str) -> None:
    with pytest.raises(CodecError) as caught:
        Codec(field).decode(raw)
    ((pointer, detail),) = caught.value.errors
    assert words in detail
    assert pointer == ""


def test_only_images_are_slow() -> None:
    assert not Codec(Text()).is_slow(b'"iVBOR"')


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(CodecError):
        Codec(Text()).decode(b'"\xff"')


@pytest.mark.parametrize(
    ("pointer", "detail", "wanted"),
    [
        ("/values/...", "expected float, got null", "/values/high~1low"),
        ("/heads/.../labels/1", "expected str, got int", "/heads/b/labels/1"),
        ("/heads/...", "expected object, got str", "/heads/..."),
        ("/values/...", "integer value out of range", "/values/..."),
        ("/values/low", "expected float, got null", "/values/low"),
    ],
)
def test_a_member_of_an_object_is_pointed_at_by_its_name(pointer: str, detail: str, wanted: str) -> None:
    body = b'{"values": {"low": 1, "high/low": null}, "heads": {"a": {"labels": ["x", "y"]}, "b": {"labels": ["x", 1]}}}'
    assert located(pointer, detail, body) == wanted


@pytest.mark.parametrize("number", [b"1e308", b"1E-320", b"12345678901234567e-330 ", b"1.7976931348623157e+0308"])
def test_numbers_that_take_long_to_read_are_refused_before_they_cost_much(number: bytes) -> None:
    raw = b"[" + b",".join([number] * 300_000) + b"]"
    for field in (Tensor(shape=(4,)), Number()):
        began = time.process_time()
        with pytest.raises(
            CodecError,
            match=r"more than 1,000 numbers are beyond 1e250, or closer to zero than 1e-250; it must be",
        ):
            Codec(field).decode(raw)
        assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "number", [b"1234567890123456789012e240", b"22222222222222222222e-340", b"9.007199254740993000E+00249"]
)
def test_numbers_of_many_digits_far_from_1_cost_little(number: bytes) -> None:
    raw = b"[" + b",".join([number] * 250_000) + b"]"
    for field in (Tensor(shape=(250_000,)), Image(height=500, width=500, channels=1)):
        began = time.process_time()
        with pytest.raises(CodecError):
            Codec(field).decode(raw if field.dtype == "float32" else raw.replace(number, b"[" + number + b"]"))
        assert time.process_time() - began < 0.8


def test_numbers_of_many_digits_are_read_as_they_are() -> None:
    raw = b"[" + b",".join([b"22222222222222222222e-60"] * 5000) + b"]"
    assert np.allclose(Codec(Tensor(shape=(5000,))).decode(raw), 22222222222222222222e-60, rtol=1e-6)
    negative = raw.replace(b"2222222222e-60", b".2222222222E-0060")
    assert np.allclose(Codec(Tensor(shape=(5000,))).decode(negative) * 1e30, 2222222222e-30, rtol=1e-5)


def test_numbers_close_to_zero_are_taken() -> None:
    raw = b"[" + b",".join([b"1e-300"] * 5000) + b"]"
    assert not Codec(Tensor(shape=(5000,))).decode(raw).any()
    small = b"[null," + b",".join([b"1.2345678901234567e-249"] * 1999) + b"]"
    assert np.nansum(Codec(Tensor(shape=(2000,), nan=True)).decode(small)) == 0
    some = b"[null," + b",".join([b"1e-300"] * 999) + b"]"
    assert np.nansum(Codec(Tensor(shape=(1000,), nan=True)).decode(some)) == 0
