"""Small image files of very many parts: they are refused before they cost much."""

from __future__ import annotations

import base64
import io
import struct
import time
import zlib
from typing import Any
from unittest import mock

import numpy as np
import PIL.Image
import pytest

from rollout import Image
from rollout.bundle.image_file import PixelBudget, decode_image, open_image
from rollout.bundle.image_parts import SCANS_A_PASS, count_passes
from rollout.config import Settings

FIELD = Image(height=8, width=8)
SIDE = 1000


def saved(kind: str, side: int = SIDE, **options: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("L", (side, side), 128).save(file, kind, **options)
    return file.getvalue()


def with_scans(more: int, side: int = SIDE) -> bytes:
    """Returns a progressive JPEG whose last scan is there so many times more: 31 bytes for each."""
    jpeg = saved("JPEG", side, progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * more + jpeg[-2:]


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def not_decoded() -> Any:
    return mock.patch.object(PIL.Image.Image, "load", side_effect=AssertionError("it is decoded"))


def test_a_jpeg_pays_for_each_of_its_scans() -> None:
    ordinary = saved("JPEG", progressive=True)
    assert count_passes(ordinary) == count_passes(saved("JPEG")) == count_passes(saved("PNG")) == 1
    FIELD.decode_file(ordinary, PixelBudget(SIDE * SIDE))
    data = with_scans(2 * SCANS_A_PASS)
    assert count_passes(data) == 3
    FIELD.decode_file(data, PixelBudget(3 * SIDE * SIDE))
    with not_decoded(), pytest.raises(ValueError, match="pixels together"):
        FIELD.decode_file(data, PixelBudget(3 * SIDE * SIDE - 1))


def test_a_small_jpeg_of_very_many_scans_is_refused_before_it_costs_much() -> None:
    """It took nine seconds, and one of 8 MiB an hour."""
    data = with_scans(500, side=3900)
    assert len(data) < 100_000
    for read in (FIELD.decode_file, lambda data: decode_image(open_image(data), "L")):
        with not_decoded(), pytest.raises(ValueError, match="3900×3900 pixels in very many scans"):
            read(data)


def test_scans_are_counted_where_libjpeg_finds_them() -> None:
    scan = b"\xff\xda\0\2"
    jpeg = saved("JPEG")
    begin, end = jpeg[:2], jpeg[2:]
    assert count_passes(begin + b"\xff\xe1\1\2" + scan * 64 + end) == 1, (
        "within another segment, as of a thumbnail"
    )
    assert count_passes(jpeg + scan * 64) == 1, "behind the end, where phones keep a film"
    many = 4 * SCANS_A_PASS
    for between in (b"", b"\xff\xff\xff", b"\xff\0", b"\xff\xd0", b"\xff\1", b"\x80"):
        assert count_passes(jpeg[:-2] + (between + scan) * many + jpeg[-2:]) == 5


BEHIND_HEAD = 33
JPEG_PARTS = [b"\xff\xfe\0\2", b"\xff\xe1\0\2", b"\xff\xdb\0\2", b"\xff\xd0", b"\xff\xd9", b"\xff", b"\0"]


@pytest.mark.parametrize(
    "data",
    [
        *(saved("JPEG")[:2] + part * (2_000_000 // len(part)) + saved("JPEG")[2:] for part in JPEG_PARTS),
        saved("JPEG")[:-2] + JPEG_PARTS[0] * 500_000 + saved("JPEG")[-2:],
        *(
            png[:at] + chunk(name) * 170_000 + png[at:]
            for png in [saved("PNG")]
            for name in (b"abCd", b"tEXt", b"IDAT")
            for at in (BEHIND_HEAD, len(png) - 12)
        ),
    ],
    ids=lambda data: data[:40].hex(),
)
def test_a_file_of_very_many_parts_is_refused_before_it_costs_much(data: bytes) -> None:
    """Of 8 MiB it took Pillow three to six seconds, in Python."""
    opened = mock.patch("PIL.Image.open", side_effect=AssertionError("it is opened"))
    with opened, pytest.raises(ValueError, match="made of very many"):
        FIELD.decode_file(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_honest_files_of_noise_are_taken(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3)).astype(np.uint8)
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 1}, {"exif": b"Exif\0\0" + b"x" * 9000}):
        file = io.BytesIO()
        PIL.Image.fromarray(noise).save(file, kind, **options)
        assert count_passes(file.getvalue()) == 1, base64.b64encode(file.getvalue()[:32])


def with_chunks(*chunks: bytes) -> bytes:
    """Returns a small PNG with chunks behind its head."""
    png = saved("PNG", side=8)
    return png[:33] + b"".join(chunks) + png[33:]


PROFILE = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(1_000_000), 9))
TEXT = chunk(b"zTXt", b"t\0\0" + zlib.compress(bytes(1_000_000), 9))


@pytest.mark.parametrize(
    "part", [PROFILE, TEXT, chunk(b"iTXt", b"t\0\1\0\0\0" + zlib.compress(bytes(1_000_000), 9))]
)
def test_what_a_png_unpacks_takes_from_the_budget(part: bytes) -> None:
    data = with_chunks(*[part] * 50)
    assert len(data) < 60_000
    budget = PixelBudget(14_000_000)
    for _ in range(3):
        FIELD.decode_file(data, budget)
    not_opened = mock.patch.object(PIL.Image, "open", side_effect=AssertionError("it is opened"))
    with not_opened, pytest.raises(ValueError, match="pixels together"):
        FIELD.decode_file(data, budget)


def test_a_png_of_very_many_profiles_is_refused_before_it_costs_much() -> None:
    """It took three seconds a megabyte."""
    data = with_chunks(*[PROFILE] * 1500)
    for read in (FIELD.decode_file, lambda data: decode_image(open_image(data), "L")):
        began = time.process_time()
        with pytest.raises(ValueError, match="very many texts or profiles"):
            read(data)
        assert time.process_time() - began < 0.2


def test_a_request_may_have_as_many_images_with_a_profile_as_rows() -> None:
    settings = Settings()
    budget = PixelBudget(settings.max_pixels)
    for _ in range(settings.max_instances):
        FIELD.decode_file(with_chunks(PROFILE), budget)
