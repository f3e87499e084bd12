"""Unpacking a bundle's archive as if whoever wrote it meant harm."""

from __future__ import annotations

import errno
import lzma
import os
import tarfile
from pathlib import Path
from typing import IO, Any

from rollout.bundle.room import room
from rollout.errors import BundleError

# Weights hardly shrink; what unpacks to a hundred times its size was made to fill a disk.
LARGEST_RATIO = 100
ALWAYS_ALLOWED = 64 * 1024 * 1024
# With the folders that they lie in, each as often as a name says it.
MOST_FILES = 10_000
# Whatever goes through folders by recursion can go through so many.
MOST_LEVELS = 32
# tarfile copies in pieces far smaller than this; only the header of a member could ask for more at once.
LARGEST_READ = 1024 * 1024
# What unpacking may take, by what the archive says of itself; of `xz -9` it is 65 MiB.
MOST_MEMORY = 128 * 1024 * 1024
# What a disk says of itself; whatever else goes wrong is the archive's fault.
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a ``.bentomodel``, which is a tar file compressed by xz, into an empty folder.

    Raises:
        BundleError: If it is not whole, unpacks to far more than it is, takes too much memory for that, or holds
            anything but plain files and folders that lie within it.
        OSError: If the disk has no room for it, or fails.
    """
    limit = ALWAYS_ALLOWED + LARGEST_RATIO * archive.stat().st_size
    try:
        with archive.open("rb") as packed, _open_tar(_Unpacked(packed, limit, room(folder))) as tar:
            places = 0
            for member in tar:
                levels = len(Path(member.name).parts)
                if levels > MOST_LEVELS:
                    raise BundleError(f"its archive holds folders that lie more than {MOST_LEVELS} deep")
                if (places := places + levels) > MOST_FILES:
                    raise BundleError(f"its archive holds more than {MOST_FILES:,} files and folders")
                tar.members.clear()  # which would keep the headers of all of them
                if tar.pax_headers:  # which each member would get a copy of
                    raise BundleError("its archive has a header for all of its files")
                # A sparse file is as large as its header says.
                if member.issparse() or not (member.isfile() or member.isdir()):
                    raise BundleError(f"its archive holds {member.name}, which is neither a file nor a folder")
                tar.extract(member, folder, filter="data")
    except BundleError:
        raise
    except Exception as error:  # tarfile has no end of them
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            raise
        raise BundleError(f"its archive cannot be unpacked: {error}") from None


def _open_tar(unpacked: _Unpacked) -> Any:  # whose `members` the types do not know
    return tarfile.open(fileobj=unpacked, mode="r:")  # type: ignore[call-overload]


class _Unpacked:
    """What an archive unpacks to, as tarfile reads it: forwards, up to a limit of bytes and of memory."""

    def __init__(self, archive: IO[bytes], limit: int, there: int) -> None:
        self._archive = archive
        self._limit, self._room = limit, there
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY)
        self._place = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_READ:  # which may be less than nothing, and then is no limit
            raise BundleError("its archive has a header that is too large")
        if self._place + size > self._limit:
            raise BundleError(f"its archive unpacks to more than {LARGEST_RATIO} times its size")
        if self._place + size > self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        pieces = []
        while size and (piece := self._piece(size)):
            pieces.append(piece)
            size -= len(piece)
            self._place += len(piece)
        return b"".join(pieces)

    def seek(self, offset: int) -> int:
        while self._place < offset and self.read(min(offset - self._place, LARGEST_READ)):
            pass
        if self._place > offset:
            raise BundleError("its archive has a file that ends before it begins")
        return self._place

    def tell(self) -> int:
        return self._place

    def _piece(self, most: int) -> bytes:
        """Returns some of what comes next, and nothing at the end."""
        piece = b""
        while not piece and not self._decompressor.eof:
            packed = self._archive.read(LARGEST_READ) if self._decompressor.needs_input else b""
            if not packed and self._decompressor.needs_input:
                raise EOFError("it ends too early")
            piece = self._decompressor.decompress(packed, most)
        return piece
