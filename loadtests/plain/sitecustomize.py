"""Rollout with review logging and metrics replaced by nothing, for the comparison to tell what the two cost.

Python imports this by itself in every process that has this folder on its path, so that `rollout serve` runs
as it always does.
"""

from __future__ import annotations

import sys
from typing import Any


class _Nothing:
    """A metric that nobody keeps."""

    def __init__(self, *_: Any) -> None:
        pass

    def __getattr__(self, _: str) -> Any:
        return _do_nothing


def _do_nothing(*_: Any, **__: Any) -> None:
    pass


async def _keep_nothing(*_: Any) -> None:
    pass


def _replace(owner: Any, name: str, by: Any) -> None:
    getattr(owner, name)  # what has moved must not go on unnoticed
    setattr(owner, name, by)


def _silence() -> None:
    from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415

    from rollout import metrics  # noqa: PLC0415
    from rollout.review.log import ReviewLog  # noqa: PLC0415

    for kind, method in ((Counter, "inc"), (Gauge, "set"), (Histogram, "observe")):
        _replace(kind, method, _do_nothing)
    for name in ("Tally", "Count"):
        _replace(metrics, name, _Nothing)
    _replace(ReviewLog, "add", _keep_nothing)


try:
    _silence()
except Exception as error:
    sys.exit(f"review logging and metrics could not be replaced: {error}")  # Python would only warn
