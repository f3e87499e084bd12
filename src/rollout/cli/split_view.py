"""Splits as a person reads them: what one says, what a change does to it, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rollout.cli.output import NOTHING, Table, Text, make_console, make_grid, make_table, titled
from rollout.cli.verdict import describe_verdict
from rollout.routing.assignment import Arm, describe
from rollout.routing.changes import consequences, default_experiment
from rollout.routing.control import Proposal
from rollout.routing.policy_words import describe_policy
from rollout.routing.split import Split
from rollout.routing.splits import Quarantined
from rollout.routing.traffic import ArmTraffic, Worker
from rollout.routing.verdict import VerdictView
from rollout.words import percent

BREAKERS = {
    "closed": "",
    "open": "its breaker is open, the champion answers for the challenger",
    "probing": "its breaker lets single requests through to the challenger",
}


def differences(before: Split | None, after: Split) -> dict[str, tuple[str, str]]:
    """Returns what changes between two splits: each field before and after, in words."""
    old = dict.fromkeys(_fields(after), NOTHING) if before is None else _fields(before)
    pairs = {name: (old[name], value) for name, value in _fields(after).items()}
    if before is None:
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    changed = {name: pair for name, pair in pairs.items() if getattr(before, name) != getattr(after, name)}
    for version in before.digests.keys() & after.digests.keys():
        old_digest, new_digest = before.digests[version], after.digests[version]
        if old_digest != new_digest:
            changed[f"bundle {version}"] = old_digest[:12], new_digest[:12]
    return changed


def show_change(proposal: Proposal) -> None:
    """Prints a change on stderr: what it does to the split and to the clients, and what speaks against it."""
    console = make_console(stderr=True)
    before, after = proposal.before, proposal.after
    revisions = "the first split" if before is None else f"revision {before.revision} → {before.revision + 1}"
    console.print(Text.assemble((proposal.model, "bold"), ", ", revisions))
    console.print(
        make_grid(
            (name, Text.assemble((old, "red"), " → ", (new, "green")) if old != NOTHING else Text(new, "green"))
            for name, (old, new) in differences(before, after).items()
        )
    )
    for sentence in consequences(before, after):
        console.print(Text(sentence), soft_wrap=True)
    for digest in proposal.release:
        version = next(version for version, one in after.digests.items() if one == digest)
        console.print(Text(f"{version} leaves the quarantine.", "yellow"), soft_wrap=True)
    for warning in proposal.warnings:
        console.print(Text(f"Warning: {warning}", "yellow"), soft_wrap=True)


def show_split(
    model: str,
    split: Split,
    verdict: VerdictView,
    traffic: Sequence[ArmTraffic],
    workers: Sequence[Worker],
    quarantine: Mapping[str, Quarantined],
) -> None:
    """Prints a split, and what came of it in the last five minutes."""
    console = make_console()
    console.print(Text.assemble((model, "bold"), f", revision {split.revision}"))
    console.print(make_grid(_facts(split)))
    console.print()
    console.print(_arms(split, traffic))
    console.print(
        make_grid(
            [
                *titled("verdict", _verdict(verdict)),
                *titled("fallbacks", _fallbacks(split, traffic)),
                *titled("agreement", _agreement(split, traffic)),
                *titled("workers", _workers(split, workers)),
                *titled("quarantine", (_held(*item) for item in quarantine.items())),
            ]
        )
    )


def show_history(model: str, splits: Sequence[Split], limit: int) -> None:
    """Prints what happened to a split, newest first; ``splits`` are one more than ``limit``, if there are."""
    table = make_table(model)
    table.add_column("revision", justify="right")
    for column in ("at", "by"):
        table.add_column(column, no_wrap=True)
    for column in ("what changed", "why"):
        table.add_column(column, overflow="fold")
    for index in range(len(splits) - 1, max(len(splits) - limit, 0) - 1, -1):
        split = splits[index]
        words = _in_words(model, splits[index - 1] if index else None, split)
        table.add_row(str(split.revision), *map(Text, (split.at, split.by, words, split.why)))
    make_console().print(table)


def _fields(split: Split) -> dict[str, str]:
    trial = split.challenger is not None
    return {
        "champion": split.champion,
        "challenger": split.challenger or NOTHING,
        "share": percent(split.share) if trial else NOTHING,
        "experiment": split.experiment or NOTHING,
        "shadow": percent(split.shadow) if trial else NOTHING,
        "policy": describe_policy(split.policy) if split.policy else NOTHING,
        "rules": "; ".join(_rules(split)) or NOTHING,
        "labels": "; ".join(_labels(split)) or NOTHING,
        "previous": split.previous or NOTHING,
        "removed": "yes" if split.removed else NOTHING,
    }


def _rules(split: Split) -> list[str]:
    return [f"{number} {describe(rule)}" for number, rule in enumerate(split.rules, start=1)]


def _labels(split: Split) -> list[str]:
    return [
        f"of {version}: {', '.join(f'{label} is {meaning}' for label, meaning in names.items())}"
        for version, names in split.labels.items()
    ]


def _in_words(model: str, before: Split | None, after: Split) -> str:
    words = {
        name: f"{name} {new}" if old == NOTHING else f"{name} {old} → {new}"
        for name, (old, new) in differences(before, after).items()
    }
    words |= {
        name: f"{'other' if getattr(after, name) else 'no'} {name}"
        for name in ("rules", "labels", "policy")
        if name in words
    }
    # What follows from the others.
    of_trial = {"share", "experiment", "shadow", "policy"}
    implied = {"previous"} if after.challenger is not None else {"previous", *of_trial}
    if after.experiment == default_experiment(model, after.champion, after.challenger):
        implied.add("experiment")
    return ", ".join(word for name, word in words.items() if name not in implied)


def _facts(split: Split) -> list[tuple[str, Text]]:
    shown = {}
    if split.challenger is not None:
        shown["experiment"] = [split.experiment]
        if split.policy is not None:
            shown["policy"] = [describe_policy(split.policy)]
        shown["shadow"] = [f"{percent(split.shadow)} of the requests outside the challenger's arm"]
    if split.previous is not None:
        shown["previous"] = [f"{split.previous}, which a rollback of {split.champion} goes back to"]
    shown |= {"rules": _rules(split), "labels": _labels(split)}
    shown["changed"] = [f"{split.at} by {split.by}{f': {split.why}' * bool(split.why)}"]
    return [row for name, lines in shown.items() for row in titled(name, map(Text, lines))]


def _arms(split: Split, traffic: Sequence[ArmTraffic]) -> Table:
    table = make_table("Clients, and traffic of the last five minutes")
    for column in ("arm", "version"):
        table.add_column(column)
    for column in ("clients", "predictions", "failed", "fallbacks", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    arms: list[tuple[Arm, str, float]] = [("champion", split.champion, 1 - 2 * split.share)]
    if split.challenger is not None:
        arms += [("control", split.champion, split.share), ("challenger", split.challenger, split.share)]
    found = {(one.arm, one.version): one for one in traffic}
    for arm, version, share in arms:
        one = found.get((arm, version), ArmTraffic(arm=arm, version=version))
        table.add_row(
            arm,
            Text(version),
            percent(share),
            f"{one.predictions:,}",
            _failed(one),
            f"{sum(one.fallbacks.values()):,}",
            _milliseconds(one, 0.5),
            _milliseconds(one, 0.99),
        )
    return table


def _failed(traffic: ArmTraffic) -> str:
    if traffic.failure_rate is None:
        return NOTHING
    return f"{traffic.failure_rate * 100:.3g} %"


def _milliseconds(traffic: ArmTraffic, quantile: float) -> str:
    seconds = traffic.latency(quantile)
    return NOTHING if seconds is None else f"{seconds * 1000:.3g}"


def _verdict(found: VerdictView) -> list[Text]:
    if found.reason == "no_trial":
        return []
    return [describe_verdict(found)]


def _fallbacks(split: Split, traffic: Sequence[ArmTraffic]) -> list[Text]:
    return [
        Text(", ".join(f"{why} {count:,}" for why, count in sorted(one.fallbacks.items())), "yellow")
        for one in traffic
        if one.fallbacks and one.version == split.challenger
    ]


def _agreement(split: Split, traffic: Sequence[ArmTraffic]) -> list[Text]:
    others = [one for one in traffic if one.arm != "challenger" and one.version == split.champion]
    agreed, disagreed, failed, dropped = (
        sum(getattr(one, name) for one in others)
        for name in ("agreed", "disagreed", "shadow_failed", "shadow_dropped")
    )
    scored = agreed + disagreed
    if split.challenger is None or not scored + failed + dropped:
        return []
    share = f"of {scored:,} rows it decided {agreed / scored * 100:.3g} % as the champion did" if scored else ""
    rest = f"failed on {failed:,} and was spared {dropped:,}"
    return [Text(", ".join(filter(None, (share, rest))))]


def _workers(split: Split, workers: Sequence[Worker]) -> list[Text]:
    if not workers:
        return [Text("none serves it", "yellow")]
    lines = []
    for revision, count in sorted(Counter(worker.revision for worker in workers).items(), reverse=True):
        who = f"{count} follow" if count > 1 else "1 follows"
        lines.append(Text(f"{who} revision {revision}", "" if revision == split.revision else "yellow"))
    for worker in workers:
        troubles = [f"refused to follow: {worker.refused}"] if worker.refused else []
        troubles += [BREAKERS[worker.breaker]] if worker.breaker != "closed" else []
        lines += [Text(f"{worker.id}: {trouble}", "red") for trouble in troubles]
    return lines


def _held(digest: str, record: Quarantined) -> Text:
    return Text(f"{record.version} ({digest[:12]}), {record.at} by {record.by}: {record.why}", "yellow")
