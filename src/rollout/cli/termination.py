"""SIGTERM ends a command, even where the exception by which it does so is lost."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


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
