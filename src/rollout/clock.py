"""Time as it is written down."""

from __future__ import annotations

import datetime


def utc_now(precision: str = "seconds") -> str:
    """Returns the time in UTC, ISO 8601 with a ``Z``.

    Args:
        precision: ``seconds`` or ``milliseconds``.
    """
    return datetime.datetime.now(datetime.UTC).isoformat(timespec=precision).replace("+00:00", "Z")
