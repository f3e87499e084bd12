"""How long a connection may take: for its headers, between two pieces of a body, and doing nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

# How often all connections of a worker are looked at, in seconds: one timer for all of them.
SWEEP_S = 1.0


class Patient(Protocol):
    """A connection that knows how long it has waited, and for what."""

    def check_patience(self, now: float) -> None:
        """Ends the connection if it has taken too long; ``now`` is the time of the event loop."""
        ...


class Sweep:
    """Looks at the connections of a worker, as long as there are any.

    Args:
        loop: The event loop.
        connections: Those that are open.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connections: Collection[Patient]) -> None:
        self.loop = loop
        self._connections = connections
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to look, unless it does."""
        if self._timer is None:
            self._timer = self.loop.call_later(SWEEP_S, self._look)

    def _look(self) -> None:
        now = self.loop.time()
        for connection in list(self._connections):
            connection.check_patience(now)
        self._timer = self.loop.call_later(SWEEP_S, self._look) if self._connections else None
