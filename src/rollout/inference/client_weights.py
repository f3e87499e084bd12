"""How much one client weighs among the rows that are looked at: whatever it sends, it raises no alarm alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rollout.judge.drift import LEAST_DISTANCE

SECONDS = 60  # the shortest window in which live rows are compared
# Of all rows of a window, the part of one client stays below the distance from which on anything is told.
OF_OTHERS = LEAST_DISTANCE / (1 - LEAST_DISTANCE)
# Where that would be fewer, so many rows of a client count all the same: a single client may be all that calls.
ALONE = 5
# A worker remembers so many clients of a window; further ones have a weight together.
MOST_CLIENTS = 16_384


class ClientWeights:
    """Admits rows by the clients that sent them."""

    def __init__(self) -> None:
        self._window = 0.0
        self._admitted: Counter[str] = Counter()
        self._before: Counter[str] = Counter()  # in the window before

    def admit(self, clients: Sequence[str], at: float) -> NDArray[np.bool_]:
        """Returns which of some rows count.

        Those who sent few of them are admitted first, so that what a client may add is known from the others.

        Args:
            clients: The client of each row.
            at: Seconds since 1970.
        """
        window, elapsed = divmod(at, SECONDS)
        if window != self._window:
            self._before = self._admitted if window == self._window + 1 else Counter()
            self._admitted = Counter()
            self._window = window
        sent: dict[str, list[int]] = {}
        for row, client in enumerate(clients):
            is_known = client in self._admitted or len(self._admitted) + len(sent) < MOST_CLIENTS
            sent.setdefault(client if is_known else "", []).append(row)
        admitted = np.zeros(len(clients), bool)
        total, total_before = self._admitted.total(), self._before.total()
        for client, rows in sorted(sent.items(), key=lambda one: self._admitted[one[0]] + len(one[1])):
            own = self._admitted[client]
            # A window that has just begun says little of how many others there are.
            others = total - own + (total_before - self._before[client]) * (1 - elapsed / SECONDS)
            most = max(1, int((total - own) * OF_OTHERS)) if others * OF_OTHERS > ALONE else ALONE
            taken = rows[: max(most - own, 0)]
            admitted[taken] = True
            self._admitted[client] += len(taken)
            total += len(taken)
        return admitted
