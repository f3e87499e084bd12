"""Lines out of a body that arrives in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Line(NamedTuple):
    """One line of a body.

    Attributes:
        number: From 1; blank lines count.
        text: What it says, without its line feed; ``None`` if it was longer than the limit.
    """

    number: int
    text: bytes | None


class Lines:
    r"""Takes a body apart into lines, and keeps no more of it than the line that is not whole yet.

    Args:
        longest: Most bytes in a line; what is longer is counted and not kept.

    Example:
        >>> lines = Lines(longest=4)
        >>> list(lines.feed(b"one\ntoo long\n\nfo")), list(lines.feed(b"ur")), list(lines.end())
        ([Line(number=1, text=b'one'), Line(number=2, text=None)], [], [Line(number=4, text=b'four')])
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._kept = bytearray()
        self._size = 0
        self._number = 0

    def feed(self, piece: bytes) -> Iterator[Line]:
        """Takes the next piece of the body; returns the lines that it ends, without those that are blank."""
        if piece.isspace() and not self._size:
            # As is everything that a small compressed body of blank lines inflates to.
            last = piece.rfind(b"\n") + 1
            self._number += piece.count(b"\n")
            piece = piece[last:]
        *ends, rest = piece.split(b"\n")
        for end in ends:
            self._keep(end)
            yield from self.end()
        self._keep(rest)

    def end(self) -> Iterator[Line]:
        """Ends the line that is not whole yet, as the end of the body does; returns it unless it is blank."""
        self._number += 1
        text = bytes(self._kept) if self._size <= self._longest else None
        self._kept.clear()
        self._size = 0
        if text is None or text.strip():
            yield Line(self._number, text)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self._longest:
            self._kept += part
        else:
            self._kept.clear()
