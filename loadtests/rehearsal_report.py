"""What ``make rehearse`` found: a row for each thing that was done, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.callers import Promise, Tally
from loadtests.sticky import torn, wrong
from rollout.routing.split import Split

FOLLOW_WITHIN_S = 2.0
# A replica of Redis may lack what the primary took in the last moment before it died.
LOSS_S = 1.0
WIDTH = 140
HEADINGS = ("what was done", "requests", "failed", "sent again", "slowest", "took", "what came of it")


class Step(msgspec.Struct):
    """Something that was done under load.

    Attributes:
        what: What was done.
        start: When, in ``time.monotonic()``; it lasts until the next one starts.
        took: How many seconds it took.
        planned: Whether nothing is lost on the way, so that the proxy need not send anything again.
        sent_again: How many requests it sent to a second replica.
        found: What came of it.
    """

    what: str
    start: float
    took: float = 0.0
    planned: bool = True
    sent_again: int = 0
    found: str = ""


class Row(NamedTuple):
    """A step, and what became of the requests that were answered in it."""

    step: Step
    sent: int
    failed: Counter[str]
    slowest_s: float


class Outcome(msgspec.Struct):
    """What became of a rehearsal.

    Attributes:
        steps: What was done, in order.
        noticed: What went wrong beside the requests, a sentence each.
        tally: What became of the requests.
        splits: The split of each revision.
        failover: The step that began with the end of the primary Redis.
        missing: Promised review items that are not in Redis in the end.
    """

    steps: list[Step] = []
    noticed: list[str] = []
    tally: Tally = msgspec.field(default_factory=Tally)
    splits: dict[int, Split] = {}
    failover: Step | None = None
    missing: list[Promise] = []

    @property
    def lost(self) -> list[Promise]:
        """Those of the missing items that asynchronous replication does not explain."""
        killed_at = -LOSS_S if self.failover is None else self.failover.start
        return [one for one in self.missing if abs(one.at - killed_at) > LOSS_S]

    def rows(self) -> Iterator[Row]:
        """Yields the steps with what was answered in them: what a step hits was on its way before."""
        seconds = np.array(self.tally.seconds)
        answered = np.array(self.tally.due) + seconds
        starts = [-np.inf, *(step.start for step in self.steps[1:]), np.inf]
        for step, (start, end) in zip(self.steps, pairwise(starts), strict=True):
            mine = seconds[(start <= answered) & (answered < end)]
            failed = Counter(failure.why for failure in self.tally.failures if start <= failure.at < end)
            yield Row(step, len(mine), failed, max(mine, default=0.0))


def faults(outcome: Outcome) -> list[str]:
    """Says what is wrong, a sentence each."""
    found = list(outcome.noticed)
    for row in outcome.rows():
        what = row.step.what
        found += [f"{what}: {count:,} requests failed: {why}" for why, count in row.failed.most_common(5)]
        if row.step.planned and row.step.sent_again:
            found.append(f"{what}: {row.step.sent_again:,} requests had to be sent again")
        if not row.sent:
            found.append(f"{what}: no request was sent")
    if count := torn(outcome.tally.seen):
        found.append(f"{count:,} times a client saw two arms under one revision")
    if count := wrong(outcome.tally.seen, outcome.splits):
        found.append(f"{count:,} answers came from another arm or version than the split says")
    if outcome.lost:
        found.append(f"{len(outcome.lost):,} promised review items are not in Redis, and no failover explains it")
    return found + list(_late(outcome))


def _late(outcome: Outcome) -> Iterator[str]:
    """Says which revisions were not followed, or for too long."""
    spans = outcome.tally.spans
    for revision in outcome.splits:
        if revision not in spans:
            yield f"revision {revision} was never seen"
    for before, after in pairwise(sorted(spans)):
        late_s = spans[before][1] - spans[after][0]
        if late_s > FOLLOW_WITHIN_S:
            yield f"revision {before} was still seen {late_s:.1f} s after revision {after}"


def show(outcome: Outcome) -> bool:
    """Prints the table and what is wrong; returns whether anything is."""
    console = Console(width=WIDTH)
    table = Table()
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in (HEADINGS[0], HEADINGS[-1]) else "right")
    for row in outcome.rows():
        table.add_row(*_cells(row))
    console.print(table)
    found = faults(outcome)
    for fault in found:
        console.print(f"✗ {fault}", style="red", markup=False)
    if not found:
        console.print("Nothing is wrong.")
    return bool(found)


def markdown(outcome: Outcome) -> str:
    """Returns the table for a page."""
    lines: list[Sequence[str]] = [HEADINGS, ["---"] * len(HEADINGS)]
    lines += [_cells(row) for row in outcome.rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    step = row.step
    return (
        step.what,
        f"{row.sent:,}",
        f"{row.failed.total():,}",
        f"{step.sent_again:,}",
        f"{row.slowest_s * 1000:,.0f} ms",
        f"{step.took:.0f} s",
        step.found,
    )
