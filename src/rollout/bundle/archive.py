"""Unpacking a bundle's archive as if whoever wrote it meant harm."""

from __future__ import annotations

import errno
import lzma
import tarfile
from pathlib import Path
from typing import IO

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
# What a disk says of itself; whatever else goes wrong is the archive's fault.
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a ``.bentomodel``, which is a tar file compressed by xz, into an empty folder.

    Raises:
        BundleError: If it is not whole, unpacks to far more than it is, or holds anything but plain files and
            folders that lie within it.
        OSError: If the disk is full or fails.
    """
    limit = ALWAYS_ALLOWED + LARGEST_RATIO * archive.stat().st_size
    try:
        with lzma.open(archive) as packed, tarfile.open(fileobj=_Bounded(packed, limit), mode="r:") as tar:  # type: ignore[call-overload]
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


class _Bounded:
    """What an archive unpacks to, as tarfile reads it, up to a limit."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file = file
        self._limit = limit

    def read(self, size: int) -> bytes:
        if size > LARGEST_READ:
            raise BundleError("its archive has a header that is too large")
        self._check(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        self._check(offset)
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, offset: int) -> None:
        if offset > self._limit:
            raise BundleError(f"its archive unpacks to more than {LARGEST_RATIO} times its size")
