"""``rollout verdict``: what the evidence says about the challenger, with an exit code for pipelines."""

from __future__ import annotations

import os
import sys

import click
import msgspec

from rollout.cli.completion import model_argument
from rollout.cli.examples import examples
from rollout.cli.output import NOTHING, Table, Text, make_console, make_grid, make_table, print_json, say, titled
from rollout.cli.shared import call, json_option
from rollout.errors import ConfigError
from rollout.judge.findings import Finding, State
from rollout.judge.verdict import Decision
from rollout.routing.splits import read_split
from rollout.routing.verdict import Ended, VerdictView, read_ended, read_verdict
from rollout.store import Redis

CODES: dict[Decision, int] = {"promote": os.EX_OK, "hold": os.EX_TEMPFAIL, "rollback": os.EX_SOFTWARE}
STYLES: dict[State, str] = {"cleared": "green", "broken": "bold red", "missing": "yellow", "open": ""}


@click.command(epilog=examples("rollout verdict digits", "rollout verdict digits --json"))
@model_argument
@json_option
def verdict(model: str, *, as_json: bool) -> None:
    """Say whether to promote the challenger (exit code 0), to hold (75) or to roll back (70).

    Once the trial is over, the exit code says how it ended: 0 if its challenger is champion, 70 if it was rolled
    back, 75 if neither, until the next trial begins.
    """

    async def read(redis: Redis) -> tuple[VerdictView, Ended | None]:
        split = await read_split(redis, model)
        if split is None:
            raise ConfigError(f"{model} has no split; `rollout split set {model} --champion VERSION` makes one")
        return await read_verdict(redis, model, split), await read_ended(redis, model, split)

    found, ended = call(read)
    if as_json:
        print_json({**msgspec.structs.asdict(found), "ended": ended})
    else:
        show_verdict(found)
        if ended is not None:
            say(describe_end(ended))
    sys.exit(CODES[found.verdict if ended is None else ended.outcome])


def show_verdict(found: VerdictView) -> None:
    """Prints a verdict and what it rests on."""
    console = make_console()
    console.print(Text.assemble((found.model, "bold"), f", revision {found.revision}"))
    rows = titled("verdict", [describe_verdict(found)])
    rows += titled("waits for", [Text(found.waits_for)] * bool(found.waits_for))
    if found.labels_wanted:
        rows += titled("labels", [Text(f"about {found.labels_wanted:,} more of disagreements until a verdict")])
    console.print(make_grid(rows))
    if found.findings:
        console.print()
        console.print(_table(found))


def describe_end(ended: Ended) -> str:
    """Says how the last trial ended."""
    became = "was promoted" if ended.outcome == "promote" else "was rolled back"
    return f"the last trial is over: {ended.version} {became} at {ended.at} by {ended.by}: {ended.why}"


def describe_verdict(found: VerdictView) -> Text:
    """Returns a verdict in a sentence."""
    style = {"promote": "bold green", "rollback": "bold red", "hold": ""}[found.verdict]
    return Text.assemble((found.verdict, style), f": {found.detail}")


def _table(found: VerdictView) -> Table:
    table = make_table("Challenger less control")
    table.add_column("question")
    for column in ("estimate", "from", "to", "limit"):
        table.add_column(column, justify="right")
    table.add_column("state")
    for one in found.findings:
        figures = (one.estimate, one.low, one.high, one.limit)
        table.add_row(Text(one.question), *map(_figure, figures), _state(one))
    return table


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _state(finding: Finding) -> Text:
    return Text(finding.state, STYLES[finding.state])
