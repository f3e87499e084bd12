"""Small files that are large images: what they cost has a bound, and nobody waits for what nobody wants."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import socket
import struct
import threading
import time
import zlib
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import PIL.Image
import psutil
import pytest
from PIL.PngImagePlugin import PngInfo

from rollout import Image, InputSchema
from rollout.bundle.codec import Codec, CodecError
from rollout.bundle.image_file import PixelBudget
from rollout.config import Settings
from rollout.cores import usable_cores
from rollout.errors import DeadlineExceededError
from rollout.http.predict import Decoder, FileRow, Instance, Row
from tests.conftest import Service, settled
from tests.images import png

SIDE = 3900
SCHEMA = InputSchema({"image": Image(height=8, width=8)})


def black(side: int) -> str:
    """Returns a square PNG in base64: black, and so about two thousand times smaller than its pixels."""
    return saved(PIL.Image.new("1", (side, side)), "PNG")


def saved(image: PIL.Image.Image, kind: str, **options: PngInfo) -> str:
    """Returns a file in base64."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode()


def instance(data: str) -> Instance:
    return Instance(client_id="c", inputs={"image": msgspec.Raw(msgspec.json.encode(data))})


def cpu_seconds(service: Service) -> float:
    process = psutil.Process(service.process.pid)
    times = [one.cpu_times() for one in process.children(recursive=True)]
    return sum(one.user + one.system for one in times)


@pytest.mark.parametrize(
    ("timeout_ms", "said"),
    [("600000", "100,000,000 pixels together"), ("1", "could not be decoded within the deadline")],
)
def test_a_request_of_bombs_is_refused_before_it_costs_much(service: Service, timeout_ms: str, said: str) -> None:
    bomb = black(SIDE)
    assert len(bomb) < 4000
    body = {"instances": [{"client_id": "c", "inputs": {"image": bomb}}] * 1024}
    before, started = cpu_seconds(service), time.monotonic()
    with service.client(headers={"X-Request-Timeout": timeout_ms}) as client:
        answer = client.post("/v1/models/digits/predict", json=body)
    assert answer.status_code in (422, 503)
    assert said in answer.text
    assert time.monotonic() - started < 30
    assert cpu_seconds(service) - before < 6, "1,024 of them cost a minute"


async def test_no_more_are_decoded_at_a_time_than_a_worker_has_cores() -> None:
    at_a_time, most, decode = 0, 0, Codec.decode

    def spy(self: Codec, *arguments: Any) -> Any:
        nonlocal at_a_time, most
        at_a_time += 1
        most = max(most, at_a_time)
        time.sleep(0.05)
        at_a_time -= 1
        return decode(self, *arguments)

    one_each = Settings(workers=usable_cores())
    with mock.patch.object(Codec, "decode", spy):
        await asyncio.gather(*(Decoder(SCHEMA, one_each).decode([instance(black(100))]) for _ in range(8)))
    assert most == 1


@pytest.mark.parametrize("size", [(1, 16_000_000), (16_385, 1)])
def test_an_image_of_a_line_is_refused_before_it_costs_much(size: tuple[int, int]) -> None:
    file = saved(PIL.Image.new("1", size), "PNG")
    codec = Codec(Image(height=8, width=8))
    with (
        mock.patch.object(PIL.Image.Image, "load", side_effect=AssertionError("it is decoded")),
        pytest.raises(CodecError, match=f"{size[0]}×{size[1]} pixels; .* and 16,384 a side"),
    ):
        codec.decode(msgspec.json.encode(file))


def gray(side: int) -> str:
    return png(np.full((side, side), 7, np.uint8))


def with_long_text() -> str:
    info = PngInfo()
    info.add_text("comment", "x" * 500_000, zip=True)
    return saved(PIL.Image.new("L", (8, 8)), "PNG", pnginfo=info)


@pytest.mark.parametrize(
    ("file", "threads"),
    [
        (gray(8), False),
        (gray(64), False),
        (gray(65), True),
        (black(SIDE), True),
        (with_long_text(), True),
        (saved(PIL.Image.new("L", (8, 8)), "JPEG"), True),
    ],
    ids=["8x8", "64x64", "65x65", "bomb", "text", "jpeg"],
)
@pytest.mark.parametrize("came_as", ["base64", "body"])
async def test_only_what_is_quick_is_decoded_where_it_is(file: str, came_as: str, *, threads: bool) -> None:
    assert len(file) < 4096
    seen: list[int] = []
    decoder = Decoder(SCHEMA, Settings())
    method = "decode" if came_as == "base64" else "decode_file"
    decode = getattr(Codec, method)

    def spy(self: Codec, *arguments: Any) -> Any:
        seen.append(threading.get_ident())
        return decode(self, *arguments)

    one = instance(file) if came_as == "base64" else FileRow("c", {"image": base64.b64decode(file)}, None)
    with mock.patch.object(Codec, method, spy):
        (arrays,) = await decoder.decode([one])
    assert isinstance(arrays, dict)
    assert (seen != [threading.get_ident()]) == threads


async def test_the_images_of_a_request_have_a_budget() -> None:
    decoder = Decoder(SCHEMA, Settings())
    rows: list[Row] = [instance(black(100)) for _ in range(3)]
    rows += [FileRow("c", {"image": base64.b64decode(black(100))}, None) for _ in range(2)]
    decoded = await decoder.decode(rows, PixelBudget(30_000))
    assert [isinstance(one, list) for one in decoded] == [False, False, False, True, True]
    faults = decoded[4]
    assert isinstance(faults, list)
    (fault,) = faults
    assert "the images of a request may have 30,000 pixels together" in fault.detail
    assert fault.pointer == "/inputs/image"
    each = await Decoder(SCHEMA, Settings(max_pixels=10_000)).decode(rows)
    assert not any(isinstance(one, list) for one in each), "a line has a budget of its own"


@pytest.mark.parametrize("why", ["late", "gone"])
async def test_what_nobody_waits_for_is_not_decoded(why: str) -> None:
    asked = 0

    def is_gone() -> bool:
        nonlocal asked
        asked += 1
        return why == "gone"

    deadline = time.monotonic() - 1 if why == "late" else time.monotonic() + 60
    rows = [instance(black(2000)) for _ in range(50)]
    with pytest.raises(DeadlineExceededError, match="left before" if why == "gone" else "within the deadline"):
        await Decoder(SCHEMA, Settings(), deadline, is_gone).decode(rows)
    assert asked == 1, "after the first row"


def test_nothing_more_is_decoded_for_who_has_gone(service: Service) -> None:
    body = msgspec.json.encode({"instances": [{"client_id": "c", "inputs": {"image": black(SIDE)}}] * 6})
    request = (
        "POST /v1/models/digits/predict HTTP/1.1\r\nHost: localhost\r\nX-Request-Timeout: 600000\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    host, port = service.base.removeprefix("http://").split(":")
    late = "rollout_errors_total", 'type="deadline-exceeded"'
    with service.client() as client:
        before = settled(client, *late)
        for _ in range(10):  # one may be gone before it is read
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(request.encode() + body)
                time.sleep(0.1)
            if settled(client, *late) > before:
                return
    pytest.fail("all of it is decoded")


@pytest.mark.parametrize(
    "exif", [b"", b"MM\0*", b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 40, b"Exif\0\0MM\0*\0\0"]
)
def test_odd_exif_is_the_files_fault_or_no_matter(exif: bytes) -> None:
    file = io.BytesIO()
    PIL.Image.new("L", (8, 8)).save(file, "PNG")
    data = file.getvalue()
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    odd = base64.b64encode(data[:33] + chunk + data[33:]).decode()
    codec = Codec(Image(height=8, width=8))
    with contextlib.suppress(CodecError):  # nothing else
        assert codec.decode(msgspec.json.encode(odd)).shape == (8, 8)
