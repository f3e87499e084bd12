"""The review of a model as a person reads it: its queue, its labels, its reviewers and its policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

import msgspec

from rollout.cli.output import NOTHING, Table, Text, make_console, make_grid, make_table, titled
from rollout.review.access_log import AccessEntry
from rollout.review.estimate import Estimate
from rollout.review.item import Reason, ReviewItem
from rollout.review.labels import Fault, Imported
from rollout.review.policy import ReviewPolicy
from rollout.review.state import State
from rollout.review.stats import Stats
from rollout.routing.trial_labels import TrialLabels

REASONS = get_args(Reason)
# So many faults of a kind are printed; --json has them all.
MOST_FAULTS = 20


def show_items(model: str, state: State, items: Sequence[ReviewItem], limit: int) -> None:
    """Prints items."""
    table = make_table(f"{model}, {state}")
    table.add_column("reason", min_width=15, max_width=19)
    for column in ("predicted at", "version"):
        table.add_column(column, no_wrap=True)
    table.add_column("the model said", min_width=14)
    for column in ("client", "key", "id"):
        table.add_column(column, overflow="fold")
    for item in items:
        # Of two versions nobody is told which said what: which of them was unsure would tell them apart.
        reason = f"{item.reason_shown}, for the trial of {item.trial}" if item.trial else item.reason
        version = NOTHING if item.trial else item.version
        says = " or ".join(item.head.says(answer) for answer in item.said)
        cells = (reason, item.at, version, says)
        table.add_row(*map(Text, (*cells, item.client_id, item.key or NOTHING, item.id)))
    console = make_console()
    console.print(table)
    if len(items) == limit:
        console.print(Text(f"These are the first {limit:,}; --limit shows more.", "dim"))


def show_imported(model: str, imported: Imported) -> None:
    """Prints what became of labels that were made elsewhere."""
    console = make_console()
    table = make_table(model)
    table.add_column("labels")
    table.add_column("", justify="right")
    faults = {
        "in conflict with what is there": imported.conflicts,
        "of unknown items": imported.unknown,
        "refused": imported.refused,
    }
    table.add_row("taken", f"{imported.taken:,}")
    table.add_row("already there", f"{imported.already_there:,}")
    for name, found in faults.items():
        table.add_row(name, f"{len(found):,}")
    console.print(table)
    console.print(make_grid(row for found in faults.values() for row in _faults(found)))


def show_stats(stats: Stats, trial: TrialLabels | None) -> None:
    """Prints the review of a model in figures."""
    console = make_console()
    console.print(_queue(stats))
    pace = f"{stats.pace.hour:,.0f} in the last hour, {stats.pace.day:,.1f} an hour in the last day"
    rows = [("oldest open", Text(stats.oldest or NOTHING)), ("decisions", Text(pace))]
    console.print(make_grid([*rows, *titled("trial", [Text(trial.in_words())] if trial else [])]))
    if stats.reviewers:
        console.print()
        console.print(_reviewers(stats))
    if stats.pairs:
        console.print()
        console.print(_pairs(stats))
    console.print()
    console.print(_accuracy(stats))
    console.print()
    console.print(_strata(stats))
    notes = {"all": stats.overall.notes}
    for one in stats.versions:
        notes[one.version or ""] = [note for note in one.notes if note not in stats.overall.notes]
    console.print(
        make_grid(
            row for name, each in notes.items() for row in titled(name, (Text(note, "yellow") for note in each))
        )
    )


def show_policy(model: str, policy: ReviewPolicy) -> None:
    """Prints a review policy."""
    console = make_console()
    console.print(Text(model, "bold"))
    console.print(make_grid((name, Text(value)) for name, value in _settings(policy).items()))


def show_policy_change(model: str, before: ReviewPolicy, after: ReviewPolicy) -> None:
    """Prints on stderr what changes in a review policy."""
    console = make_console(stderr=True)
    console.print(Text(model, "bold"))
    console.print(
        make_grid(
            (name, Text.assemble((old, "red"), " → ", (new, "green")))
            for name, (old, new) in differences(before, after).items()
        )
    )


def differences(before: ReviewPolicy, after: ReviewPolicy) -> dict[str, tuple[str, str]]:
    """Returns what changes between two policies: each setting before and after, in words."""
    old, new = _settings(before), _settings(after)
    return {
        name: (old.get(name, NOTHING), new.get(name, NOTHING))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }


def show_access(model: str, log: Sequence[AccessEntry]) -> None:
    """Prints who saw which items."""
    table = make_table(f"{model}, who saw what")
    for column in ("at", "who", "role", "how"):
        table.add_column(column, no_wrap=True)
    table.add_column("items", overflow="fold")
    for one in log:
        first, rest = one.ids[0], len(one.ids) - 1
        seen = f"{first} and {rest:,} more" if rest else first
        table.add_row(*map(Text, (one.at, one.who or NOTHING, one.role, one.did, seen)))
    make_console().print(table)


def _faults(found: Sequence[Fault]) -> Iterable[tuple[str, Text]]:
    for fault in found[:MOST_FAULTS]:
        yield fault.place, Text(fault.why, "yellow")
    if len(found) > MOST_FAULTS:
        yield "", Text(f"and {len(found) - MOST_FAULTS:,} more; --json has them all")


def _queue(stats: Stats) -> Table:
    table = make_table(f"{stats.model}, the queue")
    table.add_column("items")
    for reason in (*REASONS, "together"):
        table.add_column(reason, justify="right")
    rows = {**{str(state): counts for state, counts in stats.states.items()}, "did not enter": stats.excess}
    for name, counts in rows.items():
        cells = [counts.get(reason, 0) for reason in REASONS]
        table.add_row(name, *(f"{count:,}" for count in (*cells, sum(cells))))
    return table


def _reviewers(stats: Stats) -> Table:
    table = make_table("Reviewers")
    table.add_column("reviewer", overflow="fold")
    for column in ("decisions", "after an explanation", "answered by others too", "agreed with the label"):
        table.add_column(column, justify="right")
    for one in stats.reviewers:
        table.add_row(
            Text(one.reviewer),
            f"{one.decisions:,}",
            f"{one.explained:,}",
            f"{one.shared:,}",
            _percent(one.agreement),
        )
    return table


def _pairs(stats: Stats) -> Table:
    table = make_table("Who agrees with whom")
    table.add_column("reviewers", overflow="fold")
    # Labels have a kappa, other answers an alpha.
    names = [name for name in ("kappa", "alpha") if any(getattr(one, name) is not None for one in stats.pairs)]
    for column in ("items", "same answer", *names):
        table.add_column(column, justify="right")
    for one in stats.pairs:
        figures = [getattr(one, name) for name in names]
        table.add_row(
            Text(" and ".join(one.reviewers)),
            f"{one.items:,}",
            _percent(one.share),
            *(NOTHING if figure is None else f"{figure:.2f}" for figure in figures),
        )
    return table


def _accuracy(stats: Stats) -> Table:
    table = make_table(f"How often the model is right, by its {stats.measure}")
    table.add_column("version")
    for column in ("reviewed", "of these", "of all traffic", "95 % interval"):
        table.add_column(column, justify="right")
    for one in (stats.overall, *stats.versions):
        table.add_row(
            Text(one.version or "all"),
            f"{one.reviewed:,}",
            _share(one.raw),
            _share(one.estimate),
            _interval(one),
        )
    return table


def _strata(stats: Stats) -> Table:
    table = make_table("What that rests on")
    for column in ("version", "reason"):
        table.add_column(column)
    for column in ("entered", "stands for", "reviewed", "right"):
        table.add_column(column, justify="right")
    for one in stats.versions:
        for stratum in one.strata:
            table.add_row(
                Text(one.version or ""),
                stratum.reason,
                f"{stratum.entered:,}",
                f"{stratum.weight:,.0f}",
                f"{stratum.reviewed:,}",
                _share(stratum.right),
            )
    return table


def _interval(one: Estimate) -> str:
    return NOTHING if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"


def _share(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.3f}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share * 100:.3g} %"


def _settings(policy: ReviewPolicy) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, value in msgspec.to_builtins(policy).items():
        if isinstance(value, dict):
            shown |= {f"{name}.{reason}": f"{most:,}" for reason, most in value.items()}
        elif isinstance(value, list):
            shown[name] = ", ".join(value) or NOTHING
        else:
            shown[name] = f"{value:g}"
    return shown
