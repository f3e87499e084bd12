"""Decoding of fields: what is taken, what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rollout import Category, Image, Number, Tensor, Text, Time
from rollout.bundle.fields import Field


def parse(field: Field, json: str) -> np.ndarray[Any, Any]:
    return field.decode(msgspec.json.decode(json.encode(), type=field.wire_type))


@given(hnp.arrays(np.float32, (2, 3), elements=st.floats(-5, 5, width=32)))
def test_float_tensors_arrive_exactly(numbers: np.ndarray[Any, Any]) -> None:
    field = Tensor(shape=(2, 3), minimum=-5, maximum=5)
    decoded = parse(field, msgspec.json.encode(numbers.tolist()).decode())
    assert decoded.dtype == np.float32
    assert np.array_equal(decoded, numbers)


@pytest.mark.parametrize("json", ["[1,2]", "[1,2,6]", "[1,2,NaN]", "[1,2,Infinity]", '[1,2,"3"]', "[1,2,null]"])
def test_tensors_out_of_shape_or_range_are_refused(json: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse(Tensor(shape=(3,), maximum=5), json)


def test_a_number_beyond_float32_is_refused() -> None:
    with pytest.raises(ValueError, match="finite float32"):
        parse(Tensor(shape=(1,)), "[1e300]")


def test_integer_tensors_and_scalars() -> None:
    assert parse(Tensor(shape=(2,), dtype="int64"), "[-9007199254740993, 4]").tolist() == [-9007199254740993, 4]
    assert parse(Tensor(shape=(), dtype="uint8"), "255") == 255
    with pytest.raises(msgspec.ValidationError):
        parse(Tensor(shape=(), dtype="uint8"), "256")
    with pytest.raises(msgspec.ValidationError):
        parse(Tensor(shape=(), dtype="int64"), "1.5")


def test_every_field_says_what_it_expects() -> None:
    assert "32×32" in Image(height=32, width=32).expected
    assert Tensor(shape=(2, 3), minimum=0).expected == "2×3 nested lists of numbers, at least 0"
    assert Tensor(shape=(), dtype="uint8", maximum=9).expected == "one of whole numbers that fit uint8, at most 9"
    assert Number(maximum=3).expected == "a number, at most 3"
    assert Text(max_bytes=9).expected == "a text of at most 9 bytes in UTF-8"
    assert Category(values=("a", "b")).expected == "one of a, b"
    assert Time().expected == "a time in ISO 8601 with its zone, such as 2026-11-05T10:00:00Z"


@given(st.floats(-5, 5, width=32))
def test_numbers_arrive_exactly(number: float) -> None:
    decoded = parse(Number(minimum=-5, maximum=5), msgspec.json.encode(number).decode())
    assert decoded.dtype == np.float32
    assert decoded.shape == ()
    assert decoded == number


@pytest.mark.parametrize("json", ["5.1", "-1", "true", "null", '"3"', "[3]", "NaN"])
def test_what_is_no_number_in_range_is_refused(json: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse(Number(minimum=0, maximum=5), json)


def test_a_number_that_only_float64_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="finite float32"):
        parse(Number(), "-1e39")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12))
def test_a_text_becomes_its_bytes(text: str) -> None:
    decoded = parse(Text(max_bytes=48), msgspec.json.encode(text).decode())
    assert decoded.shape == (48,)
    assert bytes(decoded).rstrip(b"\0").decode() == text


def test_a_text_is_measured_in_bytes() -> None:
    field = Text(max_bytes=5)
    assert bytes(parse(field, '"éé!"')) == "éé!".encode()
    with pytest.raises(ValueError, match="the text has 6 bytes in UTF-8; it must be a text of at most 5 bytes"):
        parse(field, '"ééé"')
    with pytest.raises(msgspec.ValidationError, match="length <= 5"):
        parse(field, '"abcdef"')


def test_a_text_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="holds a NUL character"):
        parse(Text(max_bytes=9), '"a\\u0000b"')


@pytest.mark.parametrize("json", ["3", "null", '["a"]', '"\\ud800"'])
def test_what_is_no_text_is_refused(json: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(Text(), json)


def test_a_category_becomes_its_padded_bytes() -> None:
    field = Category(values=("EWR", "ZÜRICH"))
    assert field.shape == (7,)
    assert bytes(parse(field, '"EWR"')) == b"EWR\0\0\0\0"
    assert bytes(parse(field, '"ZÜRICH"')) == "ZÜRICH".encode()


@pytest.mark.parametrize("json", ['"LGA"', '"ewr"', '""', "0", "null"])
def test_an_unknown_category_is_refused(json: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        parse(Category(values=("EWR", "JFK")), json)


@pytest.mark.parametrize("values", [(), ("a", "a"), ("a", ""), ("a", "a\0")])
def test_categories_that_could_not_be_told_apart_are_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="different texts, not empty"):
        Category(values=values)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:01.999999Z", 1),
        ("1969-12-31T23:59:59.5Z", -1),
        ("1969-12-31T23:59:58.000001Z", -2),
        ("0001-01-01T00:00:00Z", -62135596800),
        ("0001-01-01T00:00:00+14:00", -62135596800 - 14 * 3600),
        ("9999-12-31T23:59:59.999999Z", 253402300799),
    ],
)
def test_a_time_becomes_whole_seconds_rounded_down(text: str, seconds: int) -> None:
    decoded = parse(Time(), f'"{text}"')
    assert decoded.dtype == np.int64
    assert decoded == seconds


@pytest.mark.parametrize(
    "json", ['"2026-11-05T10:00:00"', '"2026-11-05"', '"now"', "0", "null", '"2026-13-05T10:00:00Z"']
)
def test_a_time_without_its_zone_or_none_at_all_is_refused(json: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        parse(Time(), json)


@pytest.mark.parametrize("field", [Number(), Text(max_bytes=3), Category(values=("a",)), Time()])
def test_encoding_makes_a_batch_of_what_a_caller_would_send(field: Field) -> None:
    value: Any = {Number: 3, Time: "2026-11-05T10:00:00Z"}.get(type(field), "a")
    batch = field.encode([value, value])
    assert batch.shape == (2, *field.shape)
    assert batch.dtype == field.dtype
    with pytest.raises(ValueError, match=r".+"):
        field.encode([value, None])


def test_a_sample_rate_is_written_only_where_there_is_one() -> None:
    plain = b'{"kind":"tensor","shape":[4],"dtype":"float32","minimum":null,"maximum":null}'
    assert msgspec.json.encode(Tensor(shape=(4,))) == plain
    assert msgspec.json.decode(plain, type=Field) == Tensor(shape=(4,))
    sound = Tensor(shape=(4,), sample_rate=16_000)
    assert msgspec.json.decode(msgspec.json.encode(sound), type=Field) == sound
    assert sound != Tensor(shape=(4,))


@pytest.mark.parametrize(
    ("shape", "rate"), [((4,), 0), ((4,), 2_999), ((4,), 768_001), ((), 16_000), ((2, 4), 16_000)]
)
def test_a_sample_rate_that_nobody_can_hear_is_refused(shape: tuple[int, ...], rate: int) -> None:
    with pytest.raises(ValueError, match="sound has one dimension and a rate from 3,000 to 768,000 Hz"):
        Tensor(shape=shape, sample_rate=rate)
