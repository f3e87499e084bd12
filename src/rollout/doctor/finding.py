"""What a check finds: that something is as it should be, or not, and what to do."""

from __future__ import annotations

from typing import Literal

import msgspec

Level = Literal["ok", "warning", "fault"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a check found.

    Attributes:
        level: ``fault`` where something cannot work as it is, ``warning`` where it may not go on for long.
        what: What is so, in a sentence.
        todo: What to do about it; empty where nothing is to be done.
    """

    level: Level
    what: str
    todo: str = ""


def ok(what: str) -> Finding:
    """Returns that something is as it should be."""
    return Finding(level="ok", what=what)


def warning(what: str, todo: str) -> Finding:
    """Returns that something may not go on for long, or is not as intended."""
    return Finding(level="warning", what=what, todo=todo)


def fault(what: str, todo: str) -> Finding:
    """Returns that something cannot work as it is."""
    return Finding(level="fault", what=what, todo=todo)
