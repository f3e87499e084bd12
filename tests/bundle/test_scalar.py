"""A value that is missing: which fields allow it, and what the module gets for it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from rollout import Category, InputSchema, Number, Tensor, Text, Time
from rollout.bundle.codec import Codec, CodecError
from rollout.bundle.fields import Field
from rollout.bundle.schema import InvalidInputsError

PORTS = ("EWR", "JFK", "others")
NAN = float("nan")


def decode(field: Field, json: str | None) -> np.ndarray[Any, Any]:
    inputs = {} if json is None else {"x": msgspec.Raw(json.encode())}
    return InputSchema({"x": field}).decode(inputs)["x"]


@pytest.mark.parametrize("sent", ["null", " null ", None])
@pytest.mark.parametrize(
    ("field", "gets"),
    [
        (Number(optional=True), NAN),
        (Number(default=3, minimum=1), 3),
        (Number(default=3, optional=True), 3),
        (Category(values=PORTS, optional=True), [0] * 6),
        (Category(values=PORTS, default="JFK"), list(b"JFK\0\0\0")),
        (Category(values=PORTS, other="others", optional=True), [0] * 6),
        (Text(max_bytes=3, optional=True), [0] * 3),
        (Text(max_bytes=3, default="?"), [63, 0, 0]),
        (Time(optional=True), Time.MISSING),
        (Time(default="1970-01-01T01:00:00Z"), 3600),
    ],
    ids=repr,
)
def test_null_and_nothing_are_the_same_missing_value(field: Field, gets: Any, sent: str | None) -> None:
    decoded = decode(field, sent)
    assert (decoded.shape, decoded.dtype) == (field.shape, field.dtype)
    assert np.array_equal(decoded, gets, equal_nan=decoded.dtype.kind == "f")
    assert not decoded.flags.writeable  # every row without a value has the same array


@pytest.mark.parametrize(
    "field",
    [Number(), Number(optional=False), Text(), Category(values=PORTS, other="others"), Time(), Tensor(shape=())],
)
def test_what_may_not_be_missing_is_required(field: Field) -> None:
    with pytest.raises(InvalidInputsError, match=r"/x: expected .*, got null; it must be"):
        decode(field, "null")
    with pytest.raises(InvalidInputsError, match="/x: is required: "):
        decode(field, None)


def test_a_value_that_is_there_is_checked_as_ever() -> None:
    field = Number(minimum=0, optional=True)
    assert decode(field, "2.5") == 2.5
    with pytest.raises(CodecError, match=r">= 0.*; it must be a number, at least 0; null or nothing if missing"):
        Codec(field).decode(b"-1")
    for json in (b"NaN", b"Infinity", b'"NaN"', b'""'):
        with pytest.raises(CodecError):
            Codec(field).decode(json)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (Number, {"default": 3, "minimum": 5}, "the default 3 is nothing that a caller could send: .*>= 5"),
        (Number, {"default": NAN}, "the default nan .* finite float32"),
        (Number, {"default": "3"}, "expected|Expected"),
        (Text, {"default": "long", "max_bytes": 3}, "the default 'long' "),
        (Category, {"default": "LGA", "values": PORTS}, "the default 'LGA' "),
        (Category, {"other": "LGA", "values": PORTS}, "other='LGA' must be one of the values"),
        (Time, {"default": "2026-11-05T10:00:00"}, "the default '2026-11-05T10:00:00' "),
    ],
)
def test_a_default_that_no_caller_could_send_is_refused(kind: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**options)


def test_what_is_none_of_the_values_counts_as_the_one_declared_for_it() -> None:
    field = Category(values=PORTS, other="others")
    for sent, known in (
        ("JFK", "JFK"),
        ("jfk", "others"),
        ("", "others"),
        ("é" * 512, "others"),
        ("a\0", "others"),
    ):
        assert bytes(decode(field, msgspec.json.encode(sent).decode())).rstrip(b"\0").decode() == known
    with pytest.raises(
        InvalidInputsError, match="length <= 512; it must be one of EWR, JFK, others; another text"
    ):
        decode(field, msgspec.json.encode("a" * 513).decode())
    assert bytes(decode(Category(values=PORTS, other="others", default="JFK"), "null"))[:3] == b"JFK"


def test_every_field_says_that_its_value_may_be_missing() -> None:
    assert Number(default=3).expected == "a number; null or nothing counts as 3"
    assert Text(max_bytes=9, optional=True).expected.endswith("; null or nothing if missing")
    many = Category(values=tuple(map(str, range(30))), other="7")
    assert "17, 18, 19 and 10 more; another text of at most 512 characters counts as 7" in many.expected
    assert Tensor(shape=(2,), nan=True).expected == "2 nested lists of numbers; null if missing"


def test_what_is_not_said_is_not_written_to_the_manifest() -> None:
    """Bundles keep their digest."""
    assert msgspec.json.encode(Number()) == b'{"kind":"number","minimum":null,"maximum":null}'
    assert msgspec.json.encode(Time()) == b'{"kind":"time"}'
    for field in (
        Number(optional=True, default=3),
        Time(default="1970-01-01T00:00:00Z"),
        Category(values=PORTS, other="others", default="JFK"),
        Text(optional=True),
        Tensor(shape=(2,), nan=True),
    ):
        assert msgspec.json.decode(msgspec.json.encode(field), type=Field) == field


@pytest.mark.parametrize("column", [list, np.array, pd.Series, lambda values: pd.Series(values, dtype="Float64")])
def test_training_code_gives_numbers_as_it_has_them(column: Any) -> None:
    field = Number(optional=True, minimum=0)
    assert np.array_equal(
        field.encode(column([1.5, NAN, 3])), np.array([1.5, NAN, 3], np.float32), equal_nan=True
    )
    assert Number(default=7).encode(column([1.5, NAN])).tolist() == [1.5, 7]
    with pytest.raises(ValueError, match=r">= 0.*\$\[1\]"):
        field.encode(column([1.5, -1]))
    with pytest.raises(ValueError, match="row 1 has no value: give the field a default, or optional=True"):
        Number().encode(column([1.5, NAN]))
    assert field.encode([]).shape == (0,)


def test_training_code_gives_texts_and_times_as_it_has_them() -> None:
    ports = Category(values=PORTS, optional=True, other="others")
    texts = [bytes(row).rstrip(b"\0") for row in ports.encode(pd.Series(["JFK", None, "LGA"]))]
    assert texts == [b"JFK", b"", b"others"]
    assert Text(optional=True).encode(pd.Series(["a", pd.NA], dtype="string"))[1].any() == 0
    moments = pd.to_datetime(pd.Series(["1970-01-01T00:00:01.9", None]), utc=True)
    assert Time(optional=True).encode(moments).tolist() == [1, Time.MISSING]
    assert Number(optional=True).encode([True, None, np.float32(0.5)]).tolist()[::2] == [1, 0.5]


def test_nulls_in_nested_lists_are_nan() -> None:
    field = Tensor(shape=(2, 2), nan=True, maximum=9)
    expected = np.array([[1, NAN], [NAN, 4]], np.float32)
    assert np.array_equal(Codec(field).decode(b"[[1, null], [null, 4]]"), expected, equal_nan=True)
    assert Codec(field).decode(b"[[1, 2], [3, 4]]").tolist() == [[1, 2], [3, 4]]
    for json, pointer in ((b"[[1, null], [null, 10]]", "/1/1"), (b"[[1, null], null]", "/1"), (b"null", "")):
        with pytest.raises(CodecError) as caught:
            Codec(field).decode(json)
        assert [fault.pointer for fault in caught.value.errors] == [pointer]
    with pytest.raises(CodecError, match="finite float32"):
        Codec(Tensor(shape=(2,), nan=True)).decode(b"[null, 1e39]")
    with pytest.raises(ValueError, match="nan=True needs float32: int64 has no NaN"):
        Tensor(shape=(2,), dtype="int64", nan=True)


def test_numbers_that_come_as_an_array_keep_to_the_field() -> None:
    assert np.array_equal(Number(default=7, maximum=9).admit(np.array([NAN, 2], np.float32)), [7, 2])
    loose = Tensor(shape=(2,), nan=True, minimum=0)
    (row,) = loose.admit(np.array([[-NAN, 1]], np.float32))
    assert (
        row.tobytes() == np.array([NAN, 1], np.float32).tobytes()
    )  # one NaN, so that the same input is the same
    with pytest.raises(ValueError, match=r"holds -1.0 at \[0, 1\]; it must lie between 0 and"):
        loose.admit(np.array([[NAN, -1]], np.float32))
    for field in (Number(), Tensor(shape=())):
        with pytest.raises(ValueError, match=r"holds nan at \[1\]"):
            field.admit(np.array([1, NAN], np.float32))
    with pytest.raises(ValueError, match="holds inf"):
        Number(optional=True).admit(np.array([math.inf], np.float32))


def test_what_is_kept_is_what_a_caller_could_have_sent() -> None:
    number, tensor = Number(optional=True), Tensor(shape=(2,), nan=True)
    assert number.keep(None, np.array(NAN, np.float32)) is msgspec.UNSET
    assert number.keep(None, np.array(2, np.float32)) == 2
    assert number.keep(msgspec.Raw(b"null"), np.array(NAN, np.float32)) is msgspec.UNSET
    assert tensor.keep(None, np.array([NAN, 2], np.float32)) == [None, 2]
