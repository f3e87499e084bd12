"""``rollout diff``: what changed between two versions."""

from __future__ import annotations

import click

from rollout.cli.completion import complete_tags
from rollout.cli.output import NOTHING, Text, make_console, make_table


@click.command()
@click.argument("first", shell_complete=complete_tags)
@click.argument("second", shell_complete=complete_tags)
def diff(first: str, second: str) -> None:
    """Show what changed from FIRST to SECOND, such as digits:v1 digits:v2: environment, code, data, figures."""
    from rollout.bundle.lineage import differences  # noqa: PLC0415
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML

    (_, before), (_, after) = open_bundle(first), open_bundle(second)
    console = make_console()
    changes = differences(before.lineage, after.lineage)
    changes["figures"] = {
        name: (before.metrics.get(name), after.metrics.get(name))
        for name in sorted(before.metrics.keys() | after.metrics.keys())
        if before.metrics.get(name) != after.metrics.get(name)
    }
    for head, changed in changes.items():
        if not changed:
            console.print(Text.assemble((head, "bold"), ": the same"))
            console.print()
            continue
        table = make_table(head)
        for column in ("", first, second):
            table.add_column(column, overflow="fold")
        for name, (old, new) in changed.items():
            table.add_row(name, _shown(old), _shown(new))
        console.print(table)


def _shown(value: object) -> str:
    return NOTHING if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
