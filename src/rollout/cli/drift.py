"""``rollout drift``: whether live rows look like those of the evaluation, with an exit code for pipelines."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from rollout.cli.completion import model_argument
from rollout.cli.output import NOTHING, Table, Text, make_console, make_grid, make_table, print_json, titled
from rollout.cli.shared import call_for, json_option
from rollout.judge.drift import FeatureDrift, State
from rollout.routing.drift import ArmDrift, DriftView, describe_predicted, read_drift
from rollout.store import Redis

CODES: dict[State, int] = {"quiet": os.EX_OK, "too_few": os.EX_TEMPFAIL, "drifted": os.EX_SOFTWARE}
STYLES: dict[State, str] = {"quiet": "bold green", "too_few": "", "drifted": "bold red"}
# So many features are shown of each arm, and all of those that moved.
SHOWN = 8


@click.command()
@model_argument
@json_option
def drift(model: str, *, as_json: bool) -> None:
    """Say whether live rows are as in the evaluation (exit code 0), have moved (70), or are too few (75)."""

    async def read(redis: Redis) -> DriftView:
        return await read_drift(redis, model)

    found = call_for(model, read)
    if as_json:
        print_json(found)
    else:
        show_drift(found)
    sys.exit(CODES[found.state])


def show_drift(found: DriftView) -> None:
    """Prints what the last look found."""
    console = make_console()
    console.print(Text.assemble((found.model, "bold"), f", looked at {found.at}"))
    rows = titled(
        "drift", [Text.assemble((found.state.replace("_", " "), STYLES[found.state]), f": {found.detail}")]
    )
    rows += titled("note", [Text(note) for note in found.notes])
    console.print(make_grid(rows))
    for arm in found.arms:
        console.print()
        console.print(_table(arm))
        for predicted in arm.predicted:
            console.print(Text(describe_predicted(predicted)))


def _table(arm: ArmDrift) -> Table:
    table = make_table(f"{arm.arm} {arm.version}: {arm.found.rows:,} rows")
    table.add_column("feature")
    for column in ("distance", "before", "now"):
        table.add_column(column, justify="right")
    table.add_column("since")
    table.add_column("state")
    for one in _shown(arm.found.features):
        table.add_row(
            Text(one.feature),
            f"{one.distance:.3f}",
            _figure(one.before, one.unit),
            _figure(one.now, one.unit),
            (one.since or NOTHING)[:16].replace("T", " "),
            Text("moved", "bold red") if one.moved else Text(""),
        )
    return table


def _shown(features: Sequence[FeatureDrift]) -> list[FeatureDrift]:
    moved = [one for one in features if one.moved]
    return moved + [one for one in features if not one.moved][: max(0, SHOWN - len(moved))]


def _figure(value: float | None, unit: str) -> str:
    return NOTHING if value is None else f"{value:.4g} {unit}".strip()
