"""Compressed request bodies, inflated piece by piece."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from backports import zstd

from rollout.errors import MalformedBodyError, UnsupportedMediaTypeError

# The most that is inflated at once, in bytes: a small body can stand for gigabytes.
PIECE = 64 * 1024
# The most that a decompressor gets at once: what follows a frame is copied.
STEP = 4 * 1024
# Each frame costs a decompressor, and may hold nothing: so many are taken, and more for what comes out of them.
MOST_FRAMES = 1024
BYTES_OF_A_FRAME = 128


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


class _Zlib:
    """gzip or deflate, in the interface that the other decompressors of the standard library have."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # which of the two, its header says

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)


ENCODINGS: Mapping[str, Callable[[], _Decompressor]] = {
    "gzip": _Zlib,
    "deflate": _Zlib,
    "zstd": zstd.ZstdDecompressor,
}


class Inflater:
    """Inflates one body.

    Args:
        encoding: The value of ``Content-Encoding``.

    Raises:
        UnsupportedMediaTypeError: If this encoding is not taken.
    """

    def __init__(self, encoding: str) -> None:
        require_encoding(encoding)
        self._encoding = encoding.strip().lower()
        self._make = ENCODINGS[self._encoding]
        self._decompressor = self._make()
        self._frames = MOST_FRAMES
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields what a part of the body inflates to, ``PIECE`` bytes at most at a time.

        Raises:
            MalformedBodyError: If it is not of this encoding, or of very many frames that hold next to nothing.
        """
        for at in range(0, len(data), STEP):
            yield from self._inflate(data[at : at + STEP])

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._decompressor.eof:
                # Several compressed frames one after the other are one body.
                data = self._decompressor.unused_data + data
                if not data:
                    return
                self._begin_frame()
            try:
                piece = self._decompressor.decompress(data, PIECE)
            except (zlib.error, zstd.ZstdError) as error:
                raise MalformedBodyError(
                    f"the body is not {self._encoding}, which its Content-Encoding says: {error}"
                ) from None
            data = b""
            self._size += len(piece)
            if piece:
                yield piece
            elif not self._decompressor.eof:
                return

    def _begin_frame(self) -> None:
        self._frames -= 1
        if self._frames + self._size // BYTES_OF_A_FRAME < 0:
            raise MalformedBodyError(
                f"the {self._encoding} body is made of very many frames that hold next to nothing: compress it "
                "as a whole"
            )
        self._decompressor = self._make()

    def end(self) -> None:
        """Requires that the body was whole.

        Raises:
            MalformedBodyError: If it ends in the middle of a compressed frame.
        """
        if not self._decompressor.eof:
            raise MalformedBodyError(f"the {self._encoding} body ends too early: send all of it")


def require_encoding(encoding: str) -> None:
    """Refuses an encoding that is not taken.

    Raises:
        UnsupportedMediaTypeError: If it is none of ``ENCODINGS``.
    """
    if encoding.strip().lower() not in ENCODINGS:
        raise UnsupportedMediaTypeError(
            f"Content-Encoding may be one of {', '.join(ENCODINGS)}; otherwise send the body as it is",
            headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        )
