"""The image field: lists and files, what can be declared, and what it costs."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from rollout import Image
from rollout.bundle.fields import Field
from rollout.bundle.image_file import PixelBudget
from rollout.bundle.resizing import Size
from tests.bundle.pictures import file_of, sent

BLACK = sent(file_of(PIL.Image.new("L", (300, 200)), "PNG"))


@given(hnp.arrays(np.uint8, (5, 7)))
def test_nested_lists_and_png_decode_to_the_same_pixels(pixels: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> None:  # fmt: skip
    field = Image(height=5, width=7)
    assert np.array_equal(field.decode(pixels.tolist()), pixels)
    assert np.array_equal(field.decode(sent(file_of(PIL.Image.fromarray(pixels), "PNG"))), pixels)


def test_rgb_keeps_its_channels() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    field = Image(height=4, width=6, channels=3)
    assert np.array_equal(field.decode(pixels.tolist()), pixels)
    assert np.array_equal(field.decode(sent(file_of(PIL.Image.fromarray(pixels), "PNG"))), pixels)


def test_files_of_any_size_are_resized_by_area() -> None:
    small = np.array([[0, 255], [100, 40]], np.uint8)
    large = small.repeat(9, 0).repeat(9, 1)
    field = Image(height=2, width=2)
    assert np.array_equal(field.decode(sent(file_of(PIL.Image.fromarray(large), "PNG"))), small)
    upscaled = Image(height=6, width=6).decode(sent(file_of(PIL.Image.fromarray(small), "PNG")))
    assert np.array_equal(upscaled, small.repeat(3, 0).repeat(3, 1))


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
        msgspec.json.decode(json, type=Image(height=2, width=2).wire_type)


def test_a_model_may_take_files_of_its_size_alone() -> None:
    field = Image(height=200, width=300, fit="exact")
    assert field.decode(BLACK).shape == (200, 300)
    with pytest.raises(
        ValueError, match="the image is 300×200 pixels; this model takes 200×300 and nothing else"
    ):
        Image(height=300, width=200, fit="exact").decode(BLACK)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = sent(file_of(PIL.Image.new("L", (200, 300)), "JPEG", exif=exif))
    assert field.decode(turned).shape == (200, 300), "its size is that of the image upright"


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"height": 0}, "0×8 pixels are no image"),
        ({"fit": "fill"}, "fit='fill' is none of stretch, crop, pad, exact"),
        ({"resample": "cubic"}, "resample='cubic' is none of nearest, box, bilinear, bicubic, lanczos"),
        (
            {"antialias": False},
            "resample='box' is always antialiased; without, there are nearest, bilinear, bicubic",
        ),
        ({"resize_to": 9}, "resize_to is for fit='crop', and fit is 'stretch'"),
        ({"fit": "crop", "resize_to": 0}, "resize_to=0 is not from 1 to 16,384"),
        ({"padding": 9}, "fit='stretch' has nothing to pad"),
        ({"fit": "pad", "padding": 256}, "256 is no colour of this image: it must be a grey from 0 to 255"),
        ({"background": (1, 2, 3)}, "is no colour of this image: it must be a grey from 0 to 255"),
        ({"background": (1, 2, -3), "channels": 3}, "or red, green and blue"),
    ],
)
def test_what_contradicts_itself_cannot_be_declared(declared: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        msgspec.structs.replace(Image(height=8, width=8), **declared)
    manifest = msgspec.json.encode({"kind": "image", "height": 8, "width": 8, **declared})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(manifest, type=Field)


def test_defaults_are_not_written_so_that_bundles_keep_their_digest() -> None:
    plain = b'{"kind":"image","height":2,"width":3,"channels":1}'
    assert msgspec.json.encode(Image(height=2, width=3)) == plain
    assert msgspec.json.decode(plain, type=Field) == Image(height=2, width=3)
    declared = Image(
        height=2, width=3, channels=3, fit="crop", resize_to=5, resample="bicubic", antialias=False,
        padding=(1, 2, 3), background=255, upright=False,
    )  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(declared), type=Field) == declared


@pytest.mark.parametrize(
    "declared", [{}, {"fit": "crop", "resize_to": 90, "resample": "bicubic"}, {"fit": "pad"}]
)
def test_what_is_kept_of_numbers_decodes_to_the_same_numbers(declared: dict[str, object]) -> None:
    field = msgspec.structs.replace(Image(height=70, width=80, channels=3), **declared)
    pixels = np.random.RandomState(1).randint(0, 256, (70, 80, 3), np.uint8)
    assert np.array_equal(field.decode(field.keep(None, pixels)), pixels)
    assert np.array_equal(Image(height=70, width=80, channels=3).decode(field.keep(None, pixels)), pixels)
    smaller = Image(height=7, width=8, channels=3).decode(field.keep(None, pixels))
    assert smaller.shape == (7, 8, 3), "of another model it is a file like any other"


def test_presets_are_what_their_names_say() -> None:
    square: dict[str, Any] = {"height": 224, "width": 224, "channels": 3}
    assert Image.imagenet() == Image(**square, fit="crop", resize_to=256, resample="bilinear")
    assert Image.imagenet(299).resize_to == 341
    assert Image.imagenet(299, resize_to=342).resize_to == 342
    assert Image.clip() == Image(**square, fit="crop", resize_to=224, resample="bicubic")
    assert Image.vit() == Image(**square, fit="stretch", resample="bilinear")
    assert Image.vit(384, resample="bicubic").resample == "bicubic"


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (
            Image(height=32, width=32),
            "32×32 nested lists of whole numbers from 0 to 255, or a PNG, JPEG or WebP file",
        ),
        (Image(height=32, width=32), "which is stretched to that size"),
        (Image.imagenet(), "the middle is taken once its shorter side has 256 pixels"),
        (Image(height=32, width=48, fit="crop"), "once its shorter side has 48 pixels"),
        (Image(height=32, width=32, fit="pad"), "which is resized to lie inside that size"),
        (Image(height=32, width=32, fit="exact"), "of that size"),
    ],
)
def test_it_says_what_becomes_of_a_file(field: Image, words: str) -> None:
    assert words in field.expected


@pytest.mark.parametrize(
    ("field", "size", "pixels"),
    [
        (Image(height=8, width=8), (100, 60), 6_000),
        (Image(height=224, width=224), (100, 60), 224 * 224),
        (Image.imagenet(), (100, 60), 426 * 256),
        (Image.imagenet(), (3_000, 2_000), 6_000_000),
        (Image.imagenet(), (60_000 // 5, 1), 224 * 224),
        (Image(height=64, width=64, fit="pad"), (100, 1), 100),
    ],
)
def test_the_budget_pays_for_what_is_decoded_or_computed(field: Image, size: Size, pixels: int) -> None:
    data = file_of(PIL.Image.new("1", size), "PNG")
    field.decode_file(data, PixelBudget(pixels))
    with pytest.raises(ValueError, match="pixels together"):
        field.decode_file(data, PixelBudget(pixels - 1))


@pytest.mark.parametrize(
    ("field", "size", "is_slow"),
    [
        (Image(height=8, width=8), (64, 64), False),
        (Image(height=8, width=8), (65, 64), True),
        (Image(height=65, width=64), (8, 8), True),
        (Image(height=16, width=16, fit="crop"), (64, 8), False),
        (Image(height=16, width=16, fit="crop"), (64, 1), True),
        (Image(height=16, width=16, fit="crop"), (600, 2), True),
        (Image(height=16, width=16, fit="crop", resample="bilinear", antialias=False), (600, 2), False),
    ],
)
def test_a_small_file_that_becomes_large_is_slow(field: Image, size: Size, is_slow: bool) -> None:
    assert field.is_slow_file(file_of(PIL.Image.new("1", size), "PNG")) == is_slow
