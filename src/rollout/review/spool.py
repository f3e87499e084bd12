"""The spool: review items on disk while Redis is away, shared by all workers of a home.

One line an item: the CRC-32 of the JSON in eight hexadecimal digits, a space, the JSON. A crash can only cut the
last line, and its checksum tells.
"""

from __future__ import annotations

import fcntl
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from rollout.review.item import ReviewItem

logger = logging.getLogger(__name__)


class Spool:
    """A bounded file of review items.

    Args:
        folder: Where it lies; made if it is missing.
        limit: Most bytes that it may take, and those set aside that another release wrote.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = folder / "items.jsonl"
        self._draining = folder / "draining.jsonl"
        self._limit = limit

    @property
    def size(self) -> int:
        """Bytes that wait on disk."""
        total = 0
        for path in (self._file, self._draining):
            with suppress(FileNotFoundError):  # another process has just drained it
                total += path.stat().st_size
        return total

    def append(self, items: Sequence[ReviewItem]) -> list[bool]:
        """Writes items to the disk, and returns when they are there.

        Returns:
            For each item whether it was kept; ``False`` means that the spool is full.

        Raises:
            OSError: If the disk does not take them: then none is kept.
        """
        with self._locked("append"):
            size, kept, lines = self.size, [], []
            for item in items:
                data = msgspec.json.encode(item)
                line = b"%08x %b\n" % (zlib.crc32(data), data)
                kept.append(size + len(line) <= self._limit)
                if kept[-1]:
                    size += len(line)
                    lines.append(line)
            with self._file.open("ab", buffering=0) as file:
                before = file.tell()
                if before and not self._ends_whole():
                    lines.insert(0, b"\n")  # a crash cut the last line: do not glue the next one to it
                try:
                    left = memoryview(b"".join(lines))
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(before)
                    raise
        return kept

    @contextmanager
    def drain(self) -> Iterator[Iterator[ReviewItem]]:
        """Yields everything that waits, in order; leaving the block without an error removes it.

        Items that are appended meanwhile wait for the next drain. Only one process drains at a time: a second one
        gets nothing.
        """
        with self._locked("drain", block=False) as mine:
            if not mine:
                yield iter(())
                return
            if not self._draining.exists():
                with self._locked("append"):
                    if self._file.exists():
                        self._file.rename(self._draining)
            yield self._read()
            self._draining.unlink(missing_ok=True)

    def _read(self) -> Iterator[ReviewItem]:
        if not self._draining.exists():
            return
        with self._draining.open("rb") as file:
            for line in file:
                checksum, _, data = line.rstrip(b"\n").partition(b" ")
                if checksum == b"%08x" % zlib.crc32(data) and data:
                    try:
                        yield msgspec.json.decode(data, type=ReviewItem)
                    except msgspec.ValidationError as error:
                        self._set_aside(line, error)

    def _set_aside(self, line: bytes, error: msgspec.ValidationError) -> None:
        """Keeps what another release of Rollout wrote, as far as there is room, without holding up the rest."""
        aside = self.folder / "unreadable.jsonl"
        with aside.open("ab") as file:
            has_room = file.tell() + len(line) <= self._limit
            fate = "it is kept in" if has_room else "it is lost, for there is no room in"
            logger.error("a review item of another release cannot be read (%s); %s %s", error, fate, aside)
            if has_room:
                file.write(line)

    def _ends_whole(self) -> bool:
        with self._file.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"

    @contextmanager
    def _locked(self, name: str, *, block: bool = True) -> Iterator[bool]:
        with (self.folder / f"{name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX if block else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
