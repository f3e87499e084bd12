"""The watchdog: a worker whose runtime or event loop hangs ends, and its supervisor replaces it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable

HANG_S = 10.0
LOOK_EVERY_S = 0.5

logger = logging.getLogger(__name__)


class Watchdog:
    """Watches the running event loop, and what runs beside it, from a thread of its own.

    Args:
        hangs: Says what hangs, or nothing.
        limit: Seconds that the event loop may take for one step.
    """

    def __init__(self, hangs: Callable[[], str | None], limit: float = HANG_S) -> None:
        self._hangs = hangs
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._beat = time.monotonic()
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stops watching."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            self._loop.call_soon_threadsafe(self._hear)
            silent = time.monotonic() - self._beat
            what = self._hangs() or (f"the event loop, for {silent:.0f} s" if silent > self._limit else None)
            if what:
                logger.critical("%s hangs; this worker ends, to be replaced", what)
                logging.shutdown()
                os.kill(os.getpid(), signal.SIGKILL)  # what hangs would not let go of an orderly exit

    def _hear(self) -> None:
        self._beat = time.monotonic()
