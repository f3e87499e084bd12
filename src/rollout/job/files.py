"""The files of an archive or a folder, each of them a row: nothing is unpacked, one at a time is in memory."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import IO, NamedTuple

from rollout.bundle.fields import Field
from rollout.bundle.schema import InputSchema
from rollout.errors import ConfigError
from rollout.job.row import Row, Source, encode_line

TARS = (".tar", ".tar.gz", ".tgz")
SUFFIXES = (*TARS, ".zip")
# What is larger is no row, whatever the service takes: a small archive can stand for gigabytes.
LARGEST_FILE = 64 * 1024 * 1024
# Headers ask for far less at a time, and contents are read in such pieces.
LARGEST_READ = 1024 * 1024
# zipfile inflates all of a piece at once where it is of another compression.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _FaultError(Exception):
    """One file cannot be a row; those after it can."""


class _Member(NamedTuple):
    """What lies in an archive or a folder.

    Attributes:
        name: How it is called there.
        read: Reads it; ``None`` for what is no file.
        position: How much was read before it, in the unit of ``Source.total``.
    """

    name: str
    read: Callable[[], bytes] | None
    position: int


def open_files(file: Path, fields: Mapping[str, Field], client: str) -> Source:
    """Opens an archive or a folder, whose files are rows in the order in which they lie there.

    The name of a file, which is its key, is a text to us and no place: nothing is written there, and no link is
    followed.

    Args:
        file: The archive, one of ``SUFFIXES``, or the folder.
        fields: The inputs of the model by name.
        client: The client ID of every row.

    Raises:
        ConfigError: If it is not what its name says, the model takes something else than a file, or no client is
            given.
    """
    name = InputSchema(fields).file_field
    if name is None:
        raise ConfigError(
            f"{file} has a file for each row, and the model takes {', '.join(fields)}: give it a table of them"
        )
    if not client:
        raise ConfigError(f"{file} has no column of client IDs: --client ID says whose all its files are")
    lies_in = _in_folder if file.is_dir() else _in_tar if file.name.lower().endswith(TARS) else _in_zip
    left_out = 0

    def read() -> Iterator[Row]:
        nonlocal left_out
        left_out = 0
        for member in lies_in(file):
            if member.read is None:
                left_out += 1
            else:
                yield _row(client, name, member.name, member.read, member.position)

    total = sum(1 for _ in _in_folder(file)) if file.is_dir() else file.stat().st_size
    return Source(total, read, lambda: left_out)


def _row(client: str, field: str, name: str, read: Callable[[], bytes], position: int) -> Row:
    # What is not UTF-8 in a name stays different from what is.
    key = name.removeprefix("./").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    try:
        return Row(client, key, encode_line(client, key, {field: read()}), position)
    except _FaultError as error:
        return Row(client, key, b"{}", position, str(error))


def _in_folder(folder: Path) -> Iterator[_Member]:
    for number, (name, path) in enumerate(_walk(folder, ""), 1):
        yield _Member(name, None if path is None else partial(_read_path, path), number)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Path | None]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{name}/")
        else:
            yield name, Path(entry.path) if entry.is_file(follow_symlinks=False) else None


def _in_tar(archive: Path) -> Iterator[_Member]:
    with (
        archive.open("rb") as packed,
        packed if archive.suffix.lower() == ".tar" else gzip.open(packed) as plain,
        tarfile.open(fileobj=_Bounded(plain), mode="r:") as tar,  # type: ignore[call-overload]
    ):
        for member in tar:
            # Headers would gather.
            tar.members.clear()
            tar.pax_headers.clear()
            if not member.isdir():
                is_file = member.isreg() and not member.issparse()  # which is as large as its header says
                read = partial(_read, tar.extractfile(member)) if is_file else None
                yield _Member(member.name, read, packed.tell())


def _in_zip(archive: Path) -> Iterator[_Member]:
    position = 0
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            position += info.compress_size
            if not info.is_dir():
                kind = info.external_attr >> 28  # of a file's mode, where it comes from Unix
                read = partial(_read_zipped, opened, info) if kind in (0, 8) else None
                yield _Member(info.filename, read, position)


def _read_path(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise _FaultError(f"the file cannot be read: {error.strerror or error}") from None


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.compress_type not in COMPRESSIONS:
        raise _FaultError("the file is compressed by something else than deflate: make the archive anew")
    try:
        with archive.open(info) as file:
            return _read(file)
    except _FaultError:
        raise
    except Exception as error:  # it is damaged, or encrypted
        raise _FaultError(f"the file cannot be read: {error}") from None


def _read(file: IO[bytes]) -> bytes:
    pieces: list[bytes] = []
    left = LARGEST_FILE
    while piece := file.read(LARGEST_READ):
        left -= len(piece)
        if left < 0:
            raise _FaultError(f"the file is larger than {LARGEST_FILE:,} bytes")
        pieces.append(piece)
    return b"".join(pieces)


class _Bounded:
    """A file that tarfile reads, which would take all that a header asks for into memory."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_READ:
            raise ConfigError("a header in it is too large")
        return self._file.read(size)
