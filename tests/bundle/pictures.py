"""Image files made for tests: of any format, and odd ones that no library writes."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6


def file_of(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    """Returns an image as Pillow writes it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sent(data: bytes) -> str:
    """Returns a file as a caller sends it."""
    return base64.b64encode(data).decode()


def png_of(pixels: NDArray[Any], colour_type: int, bits: int, **chunks: bytes) -> bytes:
    """Writes a PNG (third edition, section 11) of any depth, with more chunks in front of its pixels.

    Args:
        pixels: Numbers of ``bits``, shape ``(height, width)`` or with the channels at the end.
        colour_type: What the channels are.
        bits: Of a channel, 8 or 16.
        chunks: By name.
    """
    height, width = pixels.shape[:2]
    lines = pixels.reshape(height, -1).astype(">u2" if bits == 16 else np.uint8)
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
    every = {"IHDR": head, **chunks, "IDAT": data, "IEND": b""}
    return PNG_SIGNATURE + b"".join(_chunk(name.encode(), content) for name, content in every.items())


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
