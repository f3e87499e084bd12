"""The breaker: a challenger that fails too often is not asked any more, and probed until it answers again.

States as in Nygard, "Release It!" (2007): closed, open, and half-open, which is called probing here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rollout.routing.traffic import BreakerState

# Fewer failures than this in a window say nothing about a rate.
FEWEST_FAILURES = 5
PROBES = 3
PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0


class Breaker:
    """Counts the calls of a challenger on this worker.

    Args:
        rate: Share of the calls in a window that may fail.
        window_s: Seconds that a window is long.
        on_change: Called with the new state whenever it changes.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        rate: float,
        window_s: float,
        on_change: Callable[[BreakerState], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._window_s = window_s
        self._on_change = on_change
        self._clock = clock
        self._seconds: deque[list[int]] = deque()
        self._pause_s = PAUSE_S
        self._next_probe = 0.0
        self._passed = 0
        self._probe_is_out = False
        self.state: BreakerState = "closed"

    def record(self, *, failed: bool) -> None:
        """Counts a call; opens when too many of them failed."""
        if self.state != "closed":
            return  # it was made before that
        second = int(self._clock())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
            while self._seconds[0][0] < second - self._window_s:
                self._seconds.popleft()
        self._seconds[-1][1] += 1
        if failed:
            self._seconds[-1][2] += 1
            calls, failures = (sum(each[column] for each in self._seconds) for column in (1, 2))
            if failures >= FEWEST_FAILURES and failures > self._rate * calls:
                self._open()

    def wants_probe(self) -> bool:
        """Whether to ask the challenger now, by way of trial; whoever is told so says later how it went."""
        if self.state == "closed" or self._probe_is_out or self._clock() < self._next_probe:
            return False
        self._probe_is_out = True
        if self.state == "open":
            self._change("probing")
        return True

    def probed(self, *, failed: bool) -> None:
        """Takes the outcome of a probe: several good ones in a row close it."""
        self._probe_is_out = False
        if failed:
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
            self._open()
            return
        self._passed += 1
        if self._passed >= PROBES:
            self._pause_s = PAUSE_S
            self._seconds.clear()
            self._change("closed")

    def _open(self) -> None:
        self._passed = 0
        self._next_probe = self._clock() + self._pause_s
        self._change("open")

    def _change(self, state: BreakerState) -> None:
        if state != self.state:
            self.state = state
            self._on_change(state)
