"""One variant for all workers of a replica: the first that has measured decides for the others."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from pathlib import Path

FOLDER = "variants"

logger = logging.getLogger(__name__)


def forget_choices(home: Path) -> None:
    """Forgets what an earlier run decided: the machine may be another."""
    shutil.rmtree(home / FOLDER, ignore_errors=True)


def share_choice(home: Path, digest: str, candidates: tuple[str, ...], fastest: str) -> str:
    """Returns the variant that the workers of a home serve; where nothing can be written, each its fastest.

    Args:
        home: What the workers share.
        digest: The bundle.
        candidates: The variants that may serve.
        fastest: The one that this worker found to be the fastest.
    """
    try:
        return _choose_on_disk(home / FOLDER, digest, candidates, fastest)
    except OSError as error:
        logger.warning("the workers may serve different variants, since they cannot agree on one: %s", error)
        return fastest


def _choose_on_disk(folder: Path, digest: str, candidates: tuple[str, ...], fastest: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    decided = folder / f"{digest[:16]}-{'-'.join(candidates)}"
    draft = folder / f".{os.getpid()}-{threading.get_ident()}-{decided.name}"
    try:
        draft.write_text(fastest)
        decided.hardlink_to(draft)  # whole, and only if nobody was first
    except FileExistsError:
        return decided.read_text()
    finally:
        draft.unlink(missing_ok=True)
    return fastest
