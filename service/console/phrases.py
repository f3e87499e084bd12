"""Splits, rules, workers and numbers in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from rollout.routing.split import Split
from rollout.routing.traffic import Worker
from rollout.words import duration, percent


class Entry(NamedTuple):
    """One change of a split.

    Attributes:
        split: What it made.
        what: What it changed.
    """

    split: Split
    what: str


def count(number: float) -> str:
    """Writes a count: 12345 is 12,345."""
    return f"{number:,.0f}"


def rate(number: float) -> str:
    """Writes so many a second, with two digits that say something."""
    if number >= 10:
        return count(number)
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def fraction(share: float) -> str:
    """Writes a measured share: 0.99974 is 99.97 %, and never 100 %."""
    return f"{share * 100:.3g} %" if share < 0.1 or share == 1 else f"{int(share * 10_000) / 100:.2f} %"


def sentence(text: str) -> str:
    """Makes a sentence of what was said in passing; names such as v2 stay as they are."""
    first = text.partition(" ")[0]
    named = any(character.isdigit() for character in first)
    return (text if named else text[:1].upper() + text[1:]).removesuffix(".") + "."


def latency(seconds: float | None) -> str:
    """Writes a latency, if one is known: 0.00043 is 0.43 ms."""
    return "–" if seconds is None else duration(seconds, digits=2)


def when(at: str) -> str:
    """Writes a time in UTC: 2026-11-22T10:03:12Z is 2026-11-22 10:03."""
    return at[:16].replace("T", " ")


def history(splits: Sequence[Split], *, first_is_known: bool) -> list[Entry]:
    """Says what each change changed, the newest first.

    Args:
        splits: The revisions, oldest first.
        first_is_known: Whether there is none before them; otherwise it only says what the second changed.
    """
    entries = [Entry(after, changed(before, after)) for before, after in pairwise(splits)]
    if splits and first_is_known:
        entries.insert(0, Entry(splits[0], changed(None, splits[0])))
    return entries[::-1]


def changed(before: Split | None, after: Split) -> str:
    """Says what a change changed."""
    if before is None:
        trial = f"; {_trial(after)}" if after.challenger is not None else ""
        return f"Champion {after.champion}{trial}"
    parts = []
    promoted = before.challenger is not None and after.champion == before.challenger
    if promoted:
        parts.append(f"promoted {after.champion}, before {before.champion}")
    elif after.champion != before.champion:
        back = "rolled back from" if after.champion == before.previous else "champion"
        parts.append(f"{back} {before.champion} to {after.champion}")
    if after.challenger is not None and after.challenger != before.challenger:
        parts.append(_trial(after))
    elif after.challenger is None:
        if before.challenger is not None and not promoted:
            parts.append(f"took {before.challenger} off trial, everybody gets {after.champion}")
    else:
        parts += _of_trial(before, after)
    if after.rules != before.rules:
        parts.append(f"rules {len(before.rules)} → {len(after.rules)}" if after.rules else "no rules any more")
    if after.labels != before.labels:
        parts.append("other names of labels")
    text = "; ".join(parts) or "nothing that shows"
    return text[0].upper() + text[1:]


def _of_trial(before: Split, after: Split) -> Iterator[str]:
    """Says what changed of a trial that goes on."""
    if after.share != before.share:
        yield f"share {percent(before.share)} → {percent(after.share)}"
    if after.experiment != before.experiment:
        yield f"new experiment key {after.experiment}"
    if after.shadow != before.shadow:
        yield f"shadow rate {percent(before.shadow)} → {percent(after.shadow)}"
    if after.policy != before.policy:
        yield "another policy" if after.policy else "no policy any more"


def following(workers: Sequence[Worker], revision: int) -> str:
    """Says how many workers serve a revision."""
    if not workers:
        return "No worker has reported in the last minute."
    there = sum(worker.revision == revision for worker in workers)
    if there < len(workers):
        return f"{there} of {len(workers)} workers follow revision {revision}."
    if there == 1:
        return f"The only worker follows revision {revision}."
    return f"{'Both' if there == 2 else f'All {there}'} workers follow revision {revision}."


def trouble(worker: Worker, revision: int) -> str:
    """Says what is wrong with a worker; nothing for one that is well."""
    parts = []
    if worker.refused:
        parts.append(f"stays at revision {worker.revision}: {worker.refused}")
    elif worker.revision != revision:
        parts.append(f"is still at revision {worker.revision}")
    if worker.breaker == "open":
        parts.append("asks the champion instead of the challenger, which failed too often: its breaker is open")
    elif worker.breaker == "probing":
        parts.append("asks the challenger now and then, to see whether it has recovered")
    return "; ".join(parts)


def _trial(split: Split) -> str:
    shadow = f", scoring {percent(split.shadow)} of the others unseen" if split.shadow else ""
    return f"trial of {split.challenger} with {percent(split.share)}{shadow}"
