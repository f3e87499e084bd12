"""Files that are there whole or not at all, whoever writes or reads them at the same time."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(file: Path, data: bytes) -> None:
    """Writes a file in place of the one before, and its folder where there is none.

    Raises:
        OSError: If it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    make_draft(draft)
    draft.write_bytes(data)
    draft.replace(file)


def make_draft(draft: Path) -> None:
    """Makes an empty file of our own: a link that others put there would have us write where it leads to.

    Raises:
        OSError: If what is there is not ours to remove, or comes back.
    """
    draft.unlink(missing_ok=True)
    draft.touch(exist_ok=False)
