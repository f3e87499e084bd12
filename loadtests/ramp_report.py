"""What ``make ramp`` found: the figures, and what is wrong with them."""

from __future__ import annotations

import math
from collections import Counter
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from loadtests.callers import CLIENT, Seen, Tally
from loadtests.sticky import torn, wrong
from rollout.routing.assignment import Arm, assign
from rollout.routing.split import Split

FOLLOW_WITHIN_S = 2.0
SIGMAS = 5
WIDTH = 120
ARMS: tuple[Arm, ...] = ("champion", "control", "challenger")


class Change(NamedTuple):
    """A change of the split.

    Attributes:
        revision: The revision that it made.
        seconds: For each replica how long it took to follow.
    """

    revision: int
    seconds: list[float]


class Outcome(msgspec.Struct, dict=True):
    """What became of a run.

    Attributes:
        requests: How many were sent.
        tallies: What became of them, process by process.
        without_redis: For how many seconds Redis was gone.
        changes: The changes of the split while they were sent.
        splits: The split of each revision.
        ended_at: The revision of each replica at the end.
    """

    requests: int
    tallies: list[Tally] = []
    without_redis: float = 0.0
    changes: list[Change] = []
    splits: dict[int, Split] = {}
    ended_at: list[int] = []

    @cached_property
    def failed(self) -> Counter[str]:
        """Requests without a right answer, by why."""
        return sum((tally.failed for tally in self.tallies), Counter())

    @cached_property
    def seen(self) -> Counter[Seen]:
        """How often each client got what."""
        return sum((tally.seen for tally in self.tallies), Counter())

    @cached_property
    def latencies(self) -> NDArray[np.float64]:
        """Seconds that each request took."""
        return np.concatenate([tally.seconds for tally in self.tallies])

    @property
    def seconds(self) -> float:
        """How long the requests took, all together."""
        return max(tally.end for tally in self.tallies) - min(tally.start for tally in self.tallies)

    @property
    def torn(self) -> int:
        """How often a client saw two arms under one revision."""
        return torn(self.seen)

    @property
    def wrong(self) -> int:
        """Answers of another arm or version than the split gives the client."""
        return wrong(self.seen, self.splits)

    @property
    def fallbacks(self) -> int:
        """Answers of the champion in the challenger's place."""
        return sum(count for one, count in self.seen.items() if one.version is None)

    def arms(self, revision: int) -> Counter[str]:
        """Counts the answers of a revision by arm."""
        counts: Counter[str] = Counter()
        for one, count in self.seen.items():
            if one.revision == revision:
                counts[one.arm] += count
        return counts


def faults(outcome: Outcome, clients: int) -> list[str]:
    """Says what is wrong, a sentence each."""
    found = [f"{count:,} requests failed: {why}" for why, count in outcome.failed.most_common(5)]
    if outcome.torn:
        found.append(f"{outcome.torn:,} times a client saw two arms under one revision")
    if outcome.wrong:
        found.append(f"{outcome.wrong:,} answers came from another arm or version than the split says")
    if len(outcome.latencies) != outcome.requests:
        found.append(f"{len(outcome.latencies):,} of {outcome.requests:,} requests are accounted for")
    for revision, split in outcome.splits.items():
        seen, shares = outcome.arms(revision), expected(split, clients)
        if not seen:
            found.append(f"revision {revision} was never seen: send for longer, or at a lower --rate")
        for arm in ARMS:
            allowed = SIGMAS * math.sqrt(seen.total() * shares[arm] * (1 - shares[arm]))
            if abs(seen[arm] - seen.total() * shares[arm]) > allowed:
                found.append(f"revision {revision}: {seen[arm]:,} of {seen.total():,} answers are {arm}'s")
    for revision, seconds in outcome.changes:
        if max(seconds) > FOLLOW_WITHIN_S:
            found.append(f"a replica took {max(seconds):.1f} s to follow revision {revision}")
    if set(outcome.ended_at) != {max(outcome.splits, default=0)}:
        found.append(f"in the end the replicas are at revisions {outcome.ended_at}")
    return found


def expected(split: Split, clients: int) -> dict[Arm, float]:
    """Returns the share of these clients that each arm has under a split."""
    arms = Counter(assign(split, CLIENT.format(client)).arm for client in range(clients))
    return {arm: arms[arm] / clients for arm in ARMS}


def show(outcome: Outcome, clients: int) -> bool:
    """Prints the figures and what is wrong with them; returns whether anything is."""
    console = Console(width=WIDTH)
    console.print(_figures(outcome, clients))
    console.print(_revisions(outcome, clients))
    found = faults(outcome, clients)
    for fault in found:
        console.print(f"✗ {fault}", style="red", markup=False)
    if not found:
        console.print("Nothing is wrong.")
    return bool(found)


def _figures(outcome: Outcome, clients: int) -> Table:
    p50, p99 = np.percentile(outcome.latencies, [50, 99]) * 1000
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, figure in {
        "requests": f"{outcome.requests:,}",
        "clients": f"{clients:,}",
        "failed": f"{outcome.failed.total():,}",
        "clients under two arms in one revision": f"{outcome.torn:,}",
        "answers of a wrong arm or version": f"{outcome.wrong:,}",
        "answers of the champion in the challenger's place": f"{outcome.fallbacks:,}",
        "seconds, of these without Redis": f"{outcome.seconds:.0f}, {outcome.without_redis:.0f}",
        "requests/s": f"{outcome.requests / outcome.seconds:,.0f}",
        "p50, p99": f"{p50:.1f} ms, {p99:.1f} ms",
    }.items():
        table.add_row(name, figure)
    return table


def _revisions(outcome: Outcome, clients: int) -> Table:
    table = Table()
    for heading in ("revision", "share", "answers", *ARMS, "challenger’s", "expected", "followed after"):
        table.add_column(heading, justify="right")
    followed = {
        change.revision: " ".join(f"{one:.2f}" for one in change.seconds) + " s" for change in outcome.changes
    }
    for revision, split in outcome.splits.items():
        seen = outcome.arms(revision)
        table.add_row(
            str(revision),
            f"{split.share:.0%}",
            f"{seen.total():,}",
            *(f"{seen[arm]:,}" for arm in ARMS),
            f"{seen['challenger'] / max(1, seen.total()):.3%}",
            f"{expected(split, clients)['challenger']:.3%}",
            followed.get(revision, "–"),
        )
    return table
