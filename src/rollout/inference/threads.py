"""Threads in a batch, or batches at a time: what is measured decides, where a row is costly."""

from __future__ import annotations

from typing import NamedTuple

from rollout.inference.profile import WORTH, Profile

# Seconds of a row from which on it is worth looking whether several threads compute a batch sooner.
COSTLY = 0.001


class Threads(NamedTuple):
    """A variant on some cores.

    Attributes:
        cores: How many.
        apart: With a thread in each of as many batches at a time as are worth it.
        together: With all cores in one batch; ``None`` if that was not measured.

    Example:
        >>> apart, together = Profile([0.0, 0.01], in_flight=2), Profile([0.0, 0.005], in_flight=1)
        >>> Threads(2, apart, together).in_a_batch
        2
    """

    cores: int
    apart: Profile
    together: Profile | None = None

    @property
    def in_a_batch(self) -> int:
        """The threads of a batch: all unless batches at a time score clearly more, since a row is sooner done."""
        is_slower = self.together is None or self.together.rate * WORTH < self.apart.rate
        return 1 if is_slower else self.cores

    @property
    def profile(self) -> Profile:
        """What batches cost so."""
        return self.together if self.together is not None and self.in_a_batch > 1 else self.apart

    def __str__(self) -> str:
        if self.together is None:
            return f"on {self.cores} cores: {_batches(self.apart.in_flight)}, {_measured(self.apart)}"
        serve = "the threads serve" if self.in_a_batch > 1 else "the batches serve"
        return (
            f"on {self.cores} cores: {_batches(self.apart.in_flight)} with one thread, {_measured(self.apart)}; "
            f"one batch with {self.cores} threads, {_measured(self.together)}: {serve}"
        )


def _batches(at_a_time: int) -> str:
    return "one batch" if at_a_time == 1 else f"{at_a_time} batches at a time"


def _measured(profile: Profile) -> str:
    return f"{profile.rate:,.3g} rows/s and {profile.seconds[1] * 1000:,.3g} ms for one"
