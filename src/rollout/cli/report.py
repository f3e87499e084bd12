"""``rollout report``: a bundle, as a person reads it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rollout.cli.output import Table, Text, make_console, make_table, say
from rollout.errors import ConfigError

if TYPE_CHECKING:
    from rollout.bundle.report import Section


@click.command()
@click.argument("tag")
@click.option("--html", type=click.Path(path_type=Path), help="Write it there, as one page, instead.")
def report(tag: str, html: Path | None) -> None:
    """Show what is known about the bundle TAG, such as digits:v2: figures, calibration, parity, gate, lineage."""
    from rollout.bundle.manifest import SIGNATURE  # noqa: PLC0415
    from rollout.bundle.report import describe  # noqa: PLC0415
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML

    folder, manifest = open_bundle(tag)
    sections = describe(manifest, is_signed=(folder / SIGNATURE).exists())
    if html is None:
        show(sections, folder)
        return
    try:
        html.write_text(render(sections, folder), "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {html}: {error.strerror}") from None
    say(f"{tag} is described in {html}")


def show(sections: list[Section], folder: Path) -> None:
    """Prints sections; ``folder`` is where the bundle lies."""
    console = make_console()
    for section in sections:
        console.print(Text(section.title, style="bold"))
        for paragraph in section.text:
            console.print(Text(paragraph))
        if section.diagram:
            console.print(Text(f"Diagram: {folder / section.diagram}"), soft_wrap=True)
        if section.facts:
            grid = Table.grid(padding=(0, 2))
            for name, fact in section.facts.items():
                grid.add_row(Text(name, style="dim"), Text(fact))
            console.print(grid)
        if section.table:
            table = make_table(section.table.caption)
            for at, column in enumerate(section.table.columns):
                is_text = at < section.table.texts
                table.add_column(column, justify="left" if is_text else "right", overflow="fold")
            for name, rows in section.table.rows.items():
                for at, row in enumerate(rows, 1):
                    cells = map(Text, (name if at == 1 else "", *row))
                    table.add_row(*cells, end_section=1 < at == len(rows))
            console.print(table)
        for item in section.items:
            grid = Table.grid(padding=(0, 1))
            grid.add_row("•", Text(item))
            console.print(grid)
        console.print()


def render(sections: list[Section], folder: Path) -> str:
    """Returns sections as one HTML page with everything inside; ``folder`` is where the bundle lies."""
    import jinja2  # noqa: PLC0415

    from rollout.bundle.manifest import read_whole  # noqa: PLC0415

    def embed(diagram: str) -> str:
        # As an image, not as elements of the page: whatever a bundle brings along, it cannot run there.
        return f"data:image/svg+xml;base64,{base64.b64encode(read_whole(folder / diagram)).decode()}"

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rollout"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html").render(sections=sections, embed=embed)
