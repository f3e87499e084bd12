"""``rollout report``: a bundle, as a person reads it."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rollout.cli.output import Table, Text, make_console, make_table, say
from rollout.errors import ConfigError
from rollout.home import prepare_home

if TYPE_CHECKING:
    from rollout.bundle.reference import NotAsInTrainingError
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
        for picture in section.pictures:
            console.print(Text(f"{picture.caption}"))
            console.print(Text(f"{folder / picture.file}"), soft_wrap=True)
        console.print()


def render(sections: list[Section], folder: Path) -> str:
    """Returns sections as one HTML page with everything inside; ``folder`` is where the bundle lies."""
    import jinja2  # noqa: PLC0415

    from rollout.bundle.manifest import read_whole  # noqa: PLC0415

    def embed(file: str) -> str:
        # As an image, not as elements of the page: whatever a bundle brings along, it cannot run there.
        kind = "svg+xml" if file.endswith(".svg") else "png"
        return f"data:image/{kind};base64,{base64.b64encode(read_whole(folder / file)).decode()}"

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rollout"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html").render(sections=sections, embed=embed)


def write_refused(tag: str, error: NotAsInTrainingError, home: Path) -> Path:
    """Writes a page about a bundle that does not decide as the author's own pipeline, and returns where it is."""
    from rollout.bundle.report import Section, describe_reference  # noqa: PLC0415

    prepare_home(home)
    compared = error.compared
    sections = [Section(tag, [f"{error.detail}."]), describe_reference(compared.result, compared.pictures)]
    page = home / "refused" / f"{tag.replace(':', '-')}.html"
    page.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rollout-refused-") as temporary:
        for name, picture in compared.pictures.items():
            file = Path(temporary, name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(picture)
        page.write_text(render(sections, Path(temporary)), "utf-8")
    return page
