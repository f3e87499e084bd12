"""Decoding of fields: what is taken, what is refused, and with which words."""

from __future__ import annotations

import base64
import io
from typing import Any

import msgspec
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rollout import Image, Tensor
from rollout.bundle import fields


def encode(image: PIL.Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode()


def parse(field: Image | Tensor, json: str) -> np.ndarray[Any, Any]:
    return field.decode(msgspec.json.decode(json.encode(), type=field.wire_type))


@given(hnp.arrays(np.uint8, (5, 7)))
def test_nested_lists_and_png_decode_to_the_same_pixels(pixels: np.ndarray[Any, Any]) -> None:
    field = Image(height=5, width=7)
    assert np.array_equal(field.decode(pixels.tolist()), pixels)
    assert np.array_equal(field.decode(encode(PIL.Image.fromarray(pixels), "PNG")), pixels)


def test_rgb_keeps_its_channels() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    field = Image(height=4, width=6, channels=3)
    assert np.array_equal(field.decode(pixels.tolist()), pixels)
    assert np.array_equal(field.decode(encode(PIL.Image.fromarray(pixels), "PNG")), pixels)


def test_files_of_any_size_are_resized_by_area() -> None:
    small = np.array([[0, 255], [100, 40]], np.uint8)
    large = small.repeat(9, 0).repeat(9, 1)
    field = Image(height=2, width=2)
    assert np.array_equal(field.decode(encode(PIL.Image.fromarray(large), "PNG")), small)
    upscaled = Image(height=6, width=6).decode(encode(PIL.Image.fromarray(small), "PNG"))
    assert np.array_equal(upscaled, small.repeat(3, 0).repeat(3, 1))


def test_jpeg_is_turned_upright() -> None:
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:8] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # orientation: upside down
    decoded = Image(height=2, width=1).decode(encode(PIL.Image.fromarray(pixels), "JPEG", exif=exif))
    assert decoded[0, 0] < 10
    assert decoded[1, 0] > 245


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not base64!", "not base64"),
        (base64.b64encode(b"hello").decode(), "neither a PNG nor a JPEG"),
        ("", "neither a PNG nor a JPEG"),
        (encode(PIL.Image.new("L", (9, 9)), "GIF"), "neither a PNG nor a JPEG"),
        (encode(PIL.Image.new("L", (400, 400), 3), "PNG")[:60], "damaged|neither"),
        (encode(PIL.Image.new("I;16", (9, 9)), "PNG"), "8 bits a channel"),
    ],
)
def test_strings_that_are_no_image_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Image(height=2, width=2).decode(text)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encode(PIL.Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    monkeypatch.setattr(PIL.Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="20000×20000 pixels; at most 16,000,000"):
        Image(height=2, width=2).decode(bomb)


@given(st.binary(max_size=300))
def test_no_bytes_bring_the_decoder_down(data: bytes) -> None:
    for prefix in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"):
        with pytest.raises(ValueError, match=r"image|base64"):
            Image(height=2, width=2).decode(base64.b64encode(prefix + data).decode())


@pytest.mark.parametrize(
    "json",
    [
        "[[1,2]]",
        "[[1,2],[3]]",
        "[[1,2],[3,256]]",
        "[[1,2],[3,-1]]",
        "[[1,2],[3,4.5]]",
        "[[1,2],[3,true]]",
        "7",
        "null",
    ],
)
def test_lists_that_are_no_image_are_refused(json: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        parse(Image(height=2, width=2), json)


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


def test_pillows_own_limit_does_not_warn_before_ours() -> None:
    assert PIL.Image.MAX_IMAGE_PIXELS is None
    assert fields.MAX_PIXELS == 16_000_000
