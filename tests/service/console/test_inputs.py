"""Inputs are shown as what they are."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import msgspec
import numpy as np
import PIL.Image
import pytest

from rollout.bundle.audio import Audio
from rollout.bundle.fields import Field, Tensor
from rollout.bundle.image import Image
from rollout.bundle.numbers import Number, Time
from rollout.bundle.table import Table
from rollout.bundle.texts import Category, Text
from rollout.bundle.wav import wav
from service.console import sound
from service.console.inputs import MOST_PIXELS, Shown, show_inputs
from tests import sounds
from tests.review.items import make_item
from tests.sounds import in_base64, tone


def shown(field: Field | None, value: Any) -> Shown:
    item = make_item(1, inputs=msgspec.Raw(msgspec.json.encode({"x": value})))
    (only,) = show_inputs({} if field is None else {"x": field}, item)
    assert only.name == "x"
    return only


def bytes_of(source: str, media_type: str) -> io.BytesIO:
    head, _, data = source.partition(",")
    assert head == f"data:{media_type};base64"
    return io.BytesIO(base64.b64decode(data))


def encode(image: PIL.Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode()


def test_nested_lists_become_a_picture_with_the_same_pixels() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    one = shown(Image(height=3, width=4), pixels.tolist())
    assert (one.kind, one.text, one.size, one.is_small) == ("image", "4 × 3 pixels", (4, 3), True)
    assert np.array_equal(np.asarray(PIL.Image.open(bytes_of(one.source, "image/png"))), pixels)
    colours = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    one = shown(Image(height=3, width=4, channels=3), colours.tolist())
    assert np.array_equal(np.asarray(PIL.Image.open(bytes_of(one.source, "image/png"))), colours)


def test_a_file_is_shown_as_it_was_sent_and_not_as_the_model_sees_it() -> None:
    photo = PIL.Image.effect_noise((3000, 1500), 50)
    one = shown(Image(height=8, width=8), encode(photo, "JPEG"))
    assert one.text == "3000 × 1500 pixels"
    assert one.size == (MOST_PIXELS, MOST_PIXELS // 2)
    assert not one.is_small
    assert PIL.Image.open(bytes_of(one.source, "image/png")).size == one.size


def test_a_sound_file_is_heard_as_the_model_hears_it() -> None:
    stereo = np.stack([tone(0.5, 44_100), tone(0.5, 44_100)], 1)
    one = shown(Audio(sample_rate=16_000, longest_s=1), in_base64(sounds.sound(stereo, 44_100, "FLAC")))
    assert (one.kind, one.text) == ("sound", "0.5 s")
    assert one.path.startswith("M")
    with wave.open(bytes_of(one.source, "audio/wav")) as played:
        assert (played.getframerate(), played.getnframes(), played.getnchannels()) == (16_000, 8_000, 1)


def test_rows_of_any_length_are_shown_as_numbers_or_a_curve() -> None:
    assert shown(Tensor(shape=("steps", 2), longest=9), [[1, 2], [3, 4], [5, 6]]).rows[2] == ["5", "6"]
    assert shown(Tensor(shape=("steps",), longest=9), [1, 2, 3, 2]).kind == "curve"
    assert shown(Tensor(shape=("steps",), longest=9, sample_rate=8_000), [0, 0.5, -0.5]).kind == "sound"


def test_a_file_that_lies_on_its_side_is_turned_upright() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    one = shown(Image(height=8, width=8), encode(PIL.Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert one.size == (20, 40)


def test_what_is_missing_is_told_from_what_is_redacted() -> None:
    fields: dict[str, Field] = {"age": Number(optional=True), "weight": Number(), "port": Category(values=("C",))}
    item = make_item(1, inputs=msgspec.Raw(b'{"port": null}'))
    assert [(one.name, one.kind, one.text) for one in show_inputs(fields, item)] == [
        ("age", "gone", "Missing: the caller has sent none."),
        ("port", "gone", "Not kept: the review policy redacts this field."),
    ]


def test_a_table_is_shown_by_its_columns() -> None:
    columns: dict[str, Number | Category] = {
        "age": Number(optional=True),
        "port": Category(values=("C", "Q"), other="Q"),
        "fare": Number(default=7),
    }
    one = shown(Table(columns=columns), {"port": "Southampton", "fare": 1234.5})
    assert (one.kind, one.text) == ("numbers", "3 columns, 1 of them missing")
    assert one.rows == [["age", "–"], ["port", "Southampton"], ["fare", "1,234.5"]]


def test_missing_numbers_are_dashes() -> None:
    one = shown(Tensor(shape=(3,), nan=True), [1, None, 3])
    assert one.kind == "numbers"
    assert one.text == "3 numbers, 1 of them missing, of the others 2 numbers from 1 to 3, 2 on average"
    assert one.rows == [["1", "–", "3"]]
    assert shown(Tensor(shape=(1,), nan=True), [None]).text == "1 numbers, 1 of them missing"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pictures_of_every_mode_are_shown(mode: str) -> None:
    one = shown(
        Image(height=8, width=8), encode(PIL.Image.new(mode, (9, 9)), "JPEG" if mode == "CMYK" else "PNG")
    )
    assert (one.kind, one.size) == ("image", (9, 9))


@pytest.mark.parametrize(("background", "colour"), [(None, (1, 2, 3)), ((255, 0, 0), (255, 0, 0))])
def test_a_webp_is_shown_over_what_the_model_sees_under_it(
    background: tuple[int, int, int] | None, colour: tuple[int, int, int]
) -> None:
    unseen = PIL.Image.new("RGBA", (9, 9), (1, 2, 3, 0))
    field = Image(height=8, width=8, channels=3, background=background)
    one = shown(field, encode(unseen, "WEBP", lossless=True, exact=True))
    assert PIL.Image.open(bytes_of(one.source, "image/png")).getpixel((4, 4)) == colour


def test_a_text_keeps_its_lines() -> None:
    one = shown(Text(), "first\n  second")
    assert (one.kind, one.text) == ("text", "first\n  second")


@pytest.mark.parametrize(
    ("field", "value", "text", "more"),
    [
        (Number(), 1234.5, "1,234.5", ""),
        (Number(), 7, "7", ""),
        (Category(values=("EWR", "JFK")), "JFK", "JFK", ""),
        (Time(), "2026-11-05T10:00:00Z", "Thursday, 5 November 2026, 10:00 UTC", "2026-11-05T10:00:00Z"),
        (
            Time(),
            "2026-11-05T10:00:07+01:00",
            "Thursday, 5 November 2026, 10:00:07 UTC+01:00",
            "2026-11-05T10:00:07+01:00",
        ),
        (Tensor(shape=()), 2.5, "2.5", ""),
    ],
)
def test_facts(field: Field, value: Any, text: str, more: str) -> None:
    one = shown(field, value)
    assert (one.kind, one.text, one.more) == ("fact", text, more)


def test_a_row_of_numbers_is_a_curve_and_can_be_read() -> None:
    one = shown(Tensor(shape=(3,)), [0, 10, 5])
    assert (one.kind, one.path, one.rows) == ("curve", "M0.0,100.0 500.0,0.0 1000.0,50.0", [["0", "10", "5"]])
    assert one.text == "3 numbers from 0 to 10, 5 on average"
    one = shown(Tensor(shape=(1000,), dtype="int64"), [7] * 1000)
    assert one.path.count(",") == sound.MOST_POINTS
    assert one.rows[0][-2:] == ["7", "…"]


def test_a_table_of_numbers_shows_a_corner() -> None:
    one = shown(Tensor(shape=(2, 2)), [[1, 2.5], [3, 4]])
    assert (one.kind, one.rows) == ("numbers", [["1", "2.5"], ["3", "4"]])
    one = shown(Tensor(shape=(2, 20, 20), dtype="uint8"), np.full((2, 20, 20), 9).tolist())
    assert (len(one.rows), len(one.rows[0]), one.rows[-1], one.rows[0][-1]) == (13, 13, ["…"], "…")
    assert one.text == "2 × 20 × 20 numbers from 9 to 9, 9 on average"


def test_a_sound_is_a_wav_file_with_its_waveform() -> None:
    one = shown(Tensor(shape=(8000,), sample_rate=16_000), [0.0, 0.5, -0.5, 1.0] * 2000)
    assert (one.kind, one.text) == ("sound", "0.5 s at 16,000 Hz")
    with wave.open(bytes_of(one.source, "audio/wav")) as reader:
        assert (reader.getnchannels(), reader.getsampwidth(), reader.getframerate(), reader.getnframes()) == (
            1,
            2,
            16_000,
            8000,
        )
        assert np.frombuffer(reader.readframes(4), "<i2").tolist() == [0, 16383, -16383, 32767]
    assert one.path.startswith("M0.0,0.0 ")
    assert one.path.endswith("0.0,75.0Z")


@pytest.mark.parametrize(
    ("dtype", "samples", "expected"),
    [
        ("float32", [0, 4, -2], [0, 32767, -16383]),
        ("uint8", [128, 192, 0], [0, 16383, -32767]),
        ("int64", [0, 16384, -32768], [0, 16383, -32767]),
        ("int64", [0, 65536, -131072], [0, 16383, -32767]),
    ],
)
def test_samples_of_every_dtype_are_brought_to_one_level(
    dtype: str, samples: list[int], expected: list[int]
) -> None:
    with wave.open(io.BytesIO(wav(np.array(samples, dtype), 8000))) as reader:
        assert np.frombuffer(reader.readframes(3), "<i2").tolist() == expected


@pytest.mark.parametrize("value", [None, "[redacted]"])
@pytest.mark.parametrize("field", [Text(), Image(height=1, width=1), Number(), None])
def test_what_was_redacted_says_so(field: Field | None, value: str | None) -> None:
    one = shown(field, value)
    assert (one.kind, one.text) == ("gone", "Not kept: the review policy redacts this field.")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (None, {"a": [1, 2]}),
        (Image(height=2, width=2), [[1, 2, 3]]),
        (Image(height=2, width=2), "no picture"),
        (Image(height=2, width=2), base64.b64encode(b"neither").decode()),
        (Category(values=("EWR",)), "JFK"),
        (Tensor(shape=(3,)), [1, 2]),
        (Tensor(shape=(0,)), []),
        (Time(), "soon"),
    ],
)
def test_what_does_not_fit_the_schema_any_more_is_shown_as_it_was_sent(field: Field | None, value: Any) -> None:
    one = shown(field, value)
    assert one.kind == "text"
    assert msgspec.json.decode(one.text) == value


def test_inputs_keep_the_order_of_the_schema_and_are_none_once_they_are_gone() -> None:
    fields: dict[str, Field] = {"b": Number(), "a": Number()}
    item = make_item(1, inputs=msgspec.Raw(b'{"a":1,"z":3,"b":2}'))
    assert [(one.name, one.text) for one in show_inputs(fields, item)] == [("b", "2"), ("a", "1"), ("z", "3")]
    assert show_inputs(fields, make_item(1, inputs=msgspec.Raw(b"null"))) == []
