"""One variant for all workers of a replica: the first that has measured decides for the others."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

FOLDER = "variants"


def forget_choices(home: Path) -> None:
    """Forgets what an earlier run decided: the machine may be another."""
    shutil.rmtree(home / FOLDER, ignore_errors=True)


def agree_on(home: Path, digest: str, candidates: tuple[str, ...], fastest: str) -> str:
    """Returns the variant that the workers of a home serve.

    Args:
        home: What the workers share.
        digest: The bundle.
        candidates: The variants that may serve.
        fastest: The one that this worker found to be the fastest.
    """
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    decided = folder / f"{digest[:16]}-{'-'.join(candidates)}"
    draft = folder / f".{os.getpid()}-{threading.get_ident()}-{decided.name}"
    draft.write_text(fastest)
    try:
        decided.hardlink_to(draft)  # whole, and only if nobody was first
    except FileExistsError:
        return decided.read_text()
    finally:
        draft.unlink()
    return fastest
