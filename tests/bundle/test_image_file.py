"""Every file that teams have: what is made of it, and what is refused before it is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout import Image
from rollout.bundle import image_file
from rollout.bundle.image_file import decode_image, open_image
from tests.bundle.pictures import COLOUR, COLOUR_ALPHA, GREY, GREY_ALPHA, PALETTE, file_of, png_of, sent

RNG = np.random.RandomState(5)
# Whatever a colour is, it and its place can be told: no two pixels are alike.
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
SOLID = (200, 100, 50)


def decoded(data: bytes, **field: Any) -> np.ndarray[Any, Any]:
    """Returns the pixels of a file as a field takes them that resizes nothing."""
    with open_image(data) as image:
        sides = sorted(image.size)
    upright = Image(height=sides[0], width=sides[1], channels=3, fit="exact")
    lying = Image(height=sides[1], width=sides[0], channels=3, fit="exact")
    for one in (upright, lying):
        try:
            return Image(**{**vars_of(one), **field}).decode(sent(data))
        except ValueError as error:
            refusal = error
    raise refusal


def vars_of(field: Image) -> dict[str, Any]:
    return {name: getattr(field, name) for name in ("height", "width", "channels", "fit")}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_file_is_turned_upright(kind: str, orientation: int) -> None:
    corners = np.zeros((32, 48, 3), np.uint8)
    corners[:16, :16], corners[:16, -16:], corners[-16:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    # How it lies in the file for each orientation (EXIF 2.32, table 6): the inverse of what has to be done to it.
    laid: dict[int, Callable[[Any], Any]] = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: np.rot90,
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: np.rot90(x, -1),
    }
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    stored = PIL.Image.fromarray(np.ascontiguousarray(laid[orientation](corners)))
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True}
    seen = decoded(file_of(stored, kind, exif=exif, **options))
    assert seen.shape == corners.shape
    most = 8 if kind == "JPEG" else 0
    assert np.abs(seen.astype(int) - corners).max() <= most
    as_it_lies = decoded(file_of(stored, kind, exif=exif, **options), upright=False)
    assert np.abs(as_it_lies.astype(int) - np.asarray(stored)).max() <= most


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_file_without_loss_arrives_pixel_by_pixel(kind: str) -> None:
    assert np.array_equal(decoded(file_of(PIL.Image.fromarray(PIXELS), kind, lossless=True)), PIXELS)


def test_a_jpeg_and_a_webp_of_a_photo_are_near_to_it() -> None:
    photo = PIL.Image.fromarray(RNG.randint(0, 256, (4, 6, 3), np.uint8)).resize((60, 40), 3)
    for kind in ("JPEG", "WEBP"):
        seen = decoded(file_of(photo, kind, quality=95))
        assert np.abs(seen.astype(int) - np.asarray(photo)).mean() < 6, kind


TRANSPARENT: dict[str, bytes] = {
    "colour and alpha": png_of(np.array([[[*SOLID, 0], [*SOLID, 255], [*SOLID, 51]]]), COLOUR_ALPHA, 8),
    "grey and alpha": png_of(np.array([[[200, 0], [200, 255], [200, 51]]]), GREY_ALPHA, 8),
    "16 bits and alpha": png_of(np.array([[[51400, 0], [51400, 65535], [51400, 13107]]]), GREY_ALPHA, 16),
    "a palette with alphas": png_of(
        np.array([[0, 1, 2]]), PALETTE, 8, PLTE=bytes(SOLID) * 3, tRNS=bytes([0, 255, 51])
    ),
    "a palette with one colour unseen": png_of(
        np.array([[0, 1, 1]]), PALETTE, 8, PLTE=bytes(SOLID) * 2, tRNS=b"\0\xff"
    ),
    "a colour that means unseen": png_of(
        np.array([[SOLID, (200, 100, 51), (9, 9, 9)]]), COLOUR, 8, tRNS=struct.pack(">3H", *SOLID)
    ),
    "a grey that means unseen": png_of(np.array([[200, 201, 9]]), GREY, 8, tRNS=struct.pack(">H", 200)),
    "a grey of 16 bits that means unseen": png_of(
        np.array([[51400, 51401, 9]]), GREY, 16, tRNS=struct.pack(">H", 51400)
    ),
    "black that means unseen": file_of(PIL.Image.new("1", (3, 1)), "PNG", transparency=0),
}
WEBP = file_of(PIL.Image.fromarray(np.array([[[*SOLID, 0], [*SOLID, 255], [*SOLID, 51]]], np.uint8)), "WEBP",
               lossless=True, exact=True)  # fmt: skip
TRANSPARENT["a WebP with alpha"] = WEBP


@pytest.mark.parametrize("data", TRANSPARENT.values(), ids=TRANSPARENT)
def test_transparency_is_ignored_unless_a_background_is_declared(data: bytes) -> None:
    with open_image(data) as image:
        hidden = decoded(data)[0, 0].tolist()
        assert hidden in ([*SOLID], [200] * 3, [0] * 3), "the colour that the file has there"
        image.info.pop("transparency", None)  # of which Pillow would warn
        if image.mode != "I;16":
            assert decoded(data).tolist() == np.asarray(image.convert("RGB")).tolist(), "as in training"
    seen = decoded(data, background=(10, 20, 30))
    assert seen[0, 0].tolist() == [10, 20, 30]
    assert decoded(data, background=255)[0, 0].tolist() == [255] * 3
    grey = decoded(data, background=77, channels=1)
    assert grey[0, 0] == 77
    if data is not TRANSPARENT["black that means unseen"]:
        assert seen[0, 1].tolist() == decoded(data)[0, 1].tolist(), "what is seen stays"


@pytest.mark.parametrize("name", ["colour and alpha", "a palette with alphas", "a WebP with alpha"])
def test_what_is_partly_transparent_is_mixed_with_the_background(name: str) -> None:
    mixed = [round(0.2 * colour + 0.8 * under) for colour, under in zip(SOLID, (10, 20, 30), strict=True)]
    assert decoded(TRANSPARENT[name], background=(10, 20, 30))[0, 2].tolist() == mixed


def test_a_palette_without_transparency_is_its_colours() -> None:
    palette = png_of(np.array([[0, 1]]), PALETTE, 8, PLTE=bytes([*SOLID, 1, 2, 3]))
    assert decoded(palette).tolist() == [[[*SOLID], [1, 2, 3]]]
    assert decoded(palette, channels=1).tolist() == [[124, 2]], "ITU-R 601-2 luma"


@pytest.mark.parametrize("channels", [1, 3])
def test_of_16_bits_the_higher_8_are_taken(channels: int) -> None:
    values = np.array([[0, 255, 256, 511, 32768, 65279, 65280, 65535]])
    higher = [0, 0, 1, 1, 128, 254, 255, 255]
    grey = decoded(png_of(values, GREY, 16), channels=channels)
    assert (grey if channels == 1 else grey[..., 0]).tolist() == [higher]
    colours = decoded(png_of(np.stack([values] * 3, -1), COLOUR, 16), channels=channels)
    assert np.array_equal(colours, grey)


def test_one_bit_is_black_and_white() -> None:
    image = PIL.Image.fromarray(np.array([[True, False, True]]))
    assert image.mode == "1"
    assert decoded(file_of(image, "PNG"), channels=1).tolist() == [[255, 0, 255]]


def test_cmyk_is_read_as_adobe_writes_it() -> None:
    inks = PIL.Image.new(
        "CMYK", (16, 16), (0, 128, 255, 51)
    )  # Pillow writes it inverted, and with Adobe's marker
    data = file_of(inks, "JPEG", quality=100, subsampling=0)
    at = data.index(b"\xff\xee")
    assert data[at + 4 : at + 9] == b"Adobe"
    # 255 - ink, times what black leaves
    seen = decoded(data)
    assert np.abs(seen.astype(int) - [204, 102, 0]).max() <= 3
    without_marker = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]
    assert np.abs(decoded(without_marker).astype(int) - seen).max() <= 1
    # The same numbers as YCCK: of inverted inks, luma and chroma of the first three, and black as it is.
    transform = at + 4 + 11
    ycck = data[:transform] + b"\x02" + data[transform + 1 :]
    with open_image(data) as image:
        luma, blue, red, black = (255 - ink for ink in (0, 128, 255, 51))
        assert image.info["adobe_transform"] == 0
    back = [luma + 1.402 * (red - 128), luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128), luma + 1.772 * (blue - 128)]  # fmt: skip
    wanted = [min(255, max(0, 255 - one)) * black / 255 for one in back]
    assert np.abs(decoded(ycck).astype(int) - wanted).max() <= 4


FRAMES = [PIL.Image.new("RGB", (8, 8), colour) for colour in (SOLID, (0, 0, 255), (0, 255, 0))]


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("MPO", {"quality": 95})]
)
def test_of_an_animation_the_first_frame_is_taken(kind: str, options: dict[str, Any]) -> None:
    data = file_of(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:], **options)
    with open_image(data) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert np.abs(decoded(data).astype(int) - SOLID).max() <= (3 if kind == "MPO" else 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not base64!", "not base64"),
        (sent(b"hello"), "neither a PNG nor a JPEG nor a WebP"),
        ("", "neither a PNG nor a JPEG nor a WebP"),
        (sent(file_of(PIL.Image.new("L", (9, 9)), "GIF")), "neither a PNG nor a JPEG nor a WebP"),
        (sent(file_of(PIL.Image.new("L", (9, 9)), "TIFF")), "neither a PNG nor a JPEG nor a WebP"),
        (sent(file_of(PIL.Image.new("L", (400, 400), 3), "PNG"))[:60], "damaged|neither"),
        (sent(file_of(PIL.Image.new("L", (400, 400), 3), "WEBP")[:-20]), "damaged|neither"),
        (sent(file_of(PIL.Image.new("L", (400, 400), 3), "JPEG")[:-200]), "damaged"),
    ],
)
def test_strings_that_are_no_image_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Image(height=2, width=2).decode(text)


def webp_bomb(width: int, height: int) -> bytes:
    """Returns a WebP whose canvas is large, and its only frame small."""
    frame = file_of(PIL.Image.new("RGB", (8, 8)), "WEBP", lossless=True)[12:]

    def three(number: int) -> bytes:
        return struct.pack("<I", number)[:3]

    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + three(width - 1) + three(height - 1)
    shown = three(0) * 2 + three(7) * 2 + three(100) + b"\0" + frame
    body = (
        b"WEBP"
        + canvas
        + b"ANIM"
        + struct.pack("<IIH", 6, 0, 0)
        + b"ANMF"
        + struct.pack("<I", len(shown))
        + shown
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("bomb", "size"),
    [
        (file_of(PIL.Image.new("1", (20_000, 20_000)), "PNG"), "20000×20000"),
        (file_of(PIL.Image.new("L", (4_800, 3_400)), "JPEG", quality=1), "4800×3400"),
        (webp_bomb(16_384, 16_384), "16384×16384"),
        (webp_bomb(1 << 24, 200), "16777216×200"),
    ],
)
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, bomb: bytes, size: str
) -> None:
    assert len(bomb) < 200_000
    monkeypatch.setattr(PIL.Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    monkeypatch.setattr(PIL.Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=f"{size} pixels; at most 16,000,000"):
        Image.imagenet().decode(sent(bomb))


@given(st.binary(max_size=300))
def test_no_bytes_bring_the_decoder_down(data: bytes) -> None:
    webp = b"RIFF" + struct.pack("<I", len(data) + 8) + b"WEBPVP8L"
    for prefix in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", webp):
        with pytest.raises(ValueError, match=r"image|base64"):
            Image(height=2, width=2).decode(sent(prefix + data))


def test_pillows_own_limit_does_not_warn_before_ours() -> None:
    assert PIL.Image.MAX_IMAGE_PIXELS is None
    assert image_file.MAX_PIXELS == 16_000_000


def test_a_picture_is_shown_in_colours_to_people() -> None:
    with open_image(TRANSPARENT["a grey that means unseen"]) as image:
        assert decode_image(image, "RGB", 255).getpixel((0, 0)) == (255, 255, 255)
