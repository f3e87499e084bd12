"""How much of a disk what comes from elsewhere may take: others write there, too."""

from __future__ import annotations

import shutil
from pathlib import Path

KEPT_FREE = 1024 * 1024 * 1024


def room(folder: Path) -> int:
    """Returns how many bytes may be written to the disk of a folder: all but 1 GiB, or half of less."""
    free = shutil.disk_usage(folder).free
    return max(free // 2, free - KEPT_FREE)
