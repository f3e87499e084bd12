"""``ROLLOUT_HOME``: what lies there is for the user who runs the service, and for nobody else on the machine."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

PRIVATE = 0o700
PRIVATE_UMASK = 0o077

logger = logging.getLogger(__name__)


def prepare_home(home: Path) -> None:
    """Makes the home, with mode 700; one that others could read is narrowed if it is ours, and that is said."""
    home.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    mode = stat.S_IMODE(home.stat().st_mode)
    if not mode & PRIVATE_UMASK:
        return
    try:
        home.chmod(PRIVATE)
    except PermissionError:  # it is a volume, say, in a container that has no other users
        logger.info("other users can read %s (mode %o), and only its owner can change that", home, mode)
    else:
        logger.warning("other users could read %s (mode %o): it has mode 700 now", home, mode)


def keep_private() -> None:
    """Lets no other user read what this process writes from now on."""
    os.umask(PRIVATE_UMASK)
