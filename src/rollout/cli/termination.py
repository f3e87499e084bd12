"""SIGTERM ends a command though its exception is lost, and Ctrl-C one whose model does not return to Python."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

TO_HEAR_S = 2.0


def end_on_sigterm(code: int) -> Callable[[], None]:
    """Has SIGTERM end the process by ``SystemExit``.

    Python drops an exception in a finalizer or a callback of a weak reference, where a signal may well find it.

    Args:
        code: The exit code.

    Returns:
        What ends the process where that has happened; to be called before it waits.
    """
    asked: list[int] = []

    def end(number: int, _: object) -> None:
        asked.append(number)
        sys.exit(code)

    def end_if_asked() -> None:
        if asked:
            sys.exit(code)

    signal.signal(signal.SIGTERM, end)
    return end_if_asked


def end_on_ctrl_c() -> None:
    """Has Ctrl-C end the process a moment later where it is not heard: a model may never return to Python.

    For what has nothing to tidy up.
    """
    heard, hear = os.pipe()
    os.set_blocking(hear, False)
    signal.set_wakeup_fd(hear)

    def watch() -> None:
        while os.read(heard, 1)[0] != signal.SIGINT:
            pass
        time.sleep(TO_HEAR_S)
        os._exit(128 + signal.SIGINT)

    threading.Thread(target=watch, name="ctrl-c", daemon=True).start()
