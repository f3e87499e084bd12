"""Requests that were refused for what their inputs are, until they are counted."""

from __future__ import annotations

import random
from collections.abc import Sequence

# So many are told apart between two looks at them; of more, the others are taken to be like them.
MOST = 1024


class Refusals:
    """Who was refused lately, and for which inputs."""

    def __init__(self) -> None:
        self._known: list[tuple[str, Sequence[str]]] = []
        self._seen = 0

    def add(self, client: str, names: Sequence[str]) -> None:
        """Notes a request.

        Args:
            client: Whose it was; empty where nobody knows.
            names: The inputs that were missing or did not fit.
        """
        self._seen += 1
        if len(self._known) < MOST:
            self._known.append((client, names))

    def thinned(self, part: float) -> list[tuple[str, Sequence[str]]]:
        """Returns a random part of them, from 0 to 1."""
        part *= self._seen / max(len(self._known), 1)
        return [one for one in self._known if random.random() < part]  # noqa: S311  nothing is secret
