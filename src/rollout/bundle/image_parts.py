"""What an image file is made of: a small file of very many parts may take as long as a large image."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

# A JPEG comes in any number of scans, and each passes over all of its pixels. Encoders write 14 at most
# (mozjpeg); so many cost about what decoding does without them.
SCANS_A_PASS = 16
# Pillow handles each part in Python. Those of honest files are large, but for a few.
PARTS = 1000
BYTES_A_PART = 1024

# A marker of JPEG that has a length, or EOI: libjpeg passes over all others, and over what is between them.
MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND"
# Chunks of PNG that Pillow unpacks whoever asks, up to a megabyte of each; so many bytes take no longer than a
# pixel does. Nothing becomes more than so many times its size (deflate's limit, "zlib Technical Details").
PACKED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")
MOST_UNPACKED, TIMES_UNPACKED = 2**20, 1032
BYTES_A_PIXEL = 12


def count_passes(data: bytes) -> int:
    """Returns how often decoding passes over the pixels of an image file: once, but for a JPEG of many scans.

    Args:
        data: The file; of what it is no more is looked at than how long its parts are.

    Raises:
        ValueError: If it is made of very many parts.
    """
    return max(1, math.ceil(_count_scans(data) / SCANS_A_PASS)) if data.startswith(JPEG) else 1


def count_unpacked(data: bytes) -> int:
    """Returns how many pixels the texts and profiles count as that are unpacked when an image file is opened.

    Args:
        data: The file; only a PNG has them compressed.

    Raises:
        ValueError: If it is made of very many parts.
    """
    sizes = _packed_chunks(data) if data.startswith(PNG) else ()
    return sum(min(MOST_UNPACKED, size * TIMES_UNPACKED) for size in sizes) // BYTES_A_PIXEL


def _count_scans(data: bytes) -> int:
    """Walks from marker to marker as libjpeg does (ITU-T T.81, annex B)."""
    scans, at, left = 0, len(JPEG), _most(data)
    while True:
        marker = MARKER.search(data, at)
        end = len(data) if marker is None else marker.end()
        left -= 1 if scans else end - at  # Pillow looks at each byte between two segments
        if left < 0:
            raise _too_many("segments")
        if marker is None or (scans and marker[1][0] == END_OF_IMAGE):
            return scans
        at = end
        if marker[1][0] != END_OF_IMAGE:
            scans += marker[1][0] == START_OF_SCAN
            at += max(2, int.from_bytes(data[end : end + 2]))


def _packed_chunks(data: bytes) -> Iterator[int]:
    """Walks from chunk to chunk (PNG, third edition, section 5.3); yields the size of each that is packed."""
    at = len(PNG)
    for _ in range(_most(data)):
        name = data[at + 4 : at + 8]
        if at >= len(data) or name == PNG_END:
            return
        size = int.from_bytes(data[at : at + 4])
        if name in PACKED_CHUNKS:
            yield size
        at += 12 + size
    raise _too_many("chunks")


def _most(data: bytes) -> int:
    return PARTS + len(data) // BYTES_A_PART


def _too_many(parts: str) -> ValueError:
    return ValueError(f"the image is made of very many {parts}, which hold next to nothing: save it anew")
