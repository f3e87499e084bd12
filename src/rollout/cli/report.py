"""``rollout report``: a bundle, as a person reads it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rollout.cli.completion import tag_argument
from rollout.cli.examples import examples
from rollout.cli.output import Table, Text, make_console, make_table, print_json, say
from rollout.cli.shared import json_option
from rollout.errors import ConfigError
from rollout.home import prepare_home

if TYPE_CHECKING:
    from rollout.bundle.manifest import Manifest
    from rollout.bundle.mistakes import Mistakes
    from rollout.bundle.reference import NotAsInTrainingError
    from rollout.bundle.report import Section
    from rollout.training.answered import Analysed


@click.command(
    epilog=examples("rollout report digits:v2", "rollout report digits:v2 --errors --html report.html")
)
@tag_argument
@click.option("--html", type=click.Path(path_type=Path), help="Write it there, as one page, instead.")
@click.option("--errors", is_flag=True, help="Group its mistakes, and show some: it answers the rows again.")
@click.option("--models", type=click.Path(path_type=Path), default=Path("models"), help="Folder of the recipes.")
@click.option(
    "--labels",
    multiple=True,
    type=click.Path(path_type=Path),
    help="With --errors, reviewed labels to look at as well, JSON lines as exported; may be given several times.",
)
@json_option
def report(
    tag: str, html: Path | None, models: Path, labels: tuple[Path, ...], *, errors: bool, as_json: bool
) -> None:
    """Show what is known about the bundle TAG, such as digits:v2: figures, calibration, parity, gate, lineage.

    With --errors, the mistakes on the evaluation part, which the recipe in --models loads again, and on reviewed
    rows: by what was taken for what, and by what the inputs are like. --json has them and the manifest.
    """
    from rollout.bundle.baseline import read_baseline  # noqa: PLC0415
    from rollout.bundle.manifest import SIGNATURE  # noqa: PLC0415
    from rollout.bundle.report import describe  # noqa: PLC0415
    from rollout.bundle.report_page import render  # noqa: PLC0415
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML

    if labels and not errors:
        raise ConfigError("--labels are looked at with --errors: say that as well")
    if html is not None and as_json:
        raise ConfigError("--html and --json are two ways to give the same: leave one out")
    folder, manifest = open_bundle(tag)
    looked = _look_at_errors(folder, manifest, models / manifest.name, labels) if errors else []
    if as_json:
        print_json({"manifest": manifest, "errors": [found for _, found, _ in looked] if errors else None})
        return
    sections = describe(manifest, is_signed=(folder / SIGNATURE).exists(), baseline=read_baseline(folder))
    sections += [section for each in looked for section in _describe(manifest, *each)]
    if html is None:
        show(sections, folder)
        return
    try:
        html.write_text(render(sections, folder), "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {html}: {error.strerror}") from None
    say(f"{tag} is described in {html}")


def _look_at_errors(
    folder: Path, manifest: Manifest, recipe: Path, labels: tuple[Path, ...]
) -> list[tuple[Analysed, Mistakes | None, str]]:
    from rollout.bundle.mistakes import find_mistakes  # noqa: PLC0415
    from rollout.training.answered import (  # noqa: PLC0415
        EVALUATION,
        REVIEWED,
        evaluation_rows,
        reviewed_rows,
    )
    from rollout.training.labels import name_exports  # noqa: PLC0415

    parts = (
        (evaluation_rows(folder, manifest, recipe), EVALUATION),
        (reviewed_rows(folder, manifest, name_exports(labels)), REVIEWED),
    )
    return [
        (each, each.answered and find_mistakes(each.answered, manifest.inputs, manifest.task), of)
        for each, of in parts
    ]


def _describe(manifest: Manifest, analysed: Analysed, found: Mistakes | None, of: str) -> list[Section]:
    from rollout.bundle.mistakes_report import describe_mistakes  # noqa: PLC0415
    from rollout.bundle.report import Section  # noqa: PLC0415

    if found is None or analysed.answered is None:
        return [Section(f"Mistakes on {of}", analysed.notes)]
    return describe_mistakes(found, analysed.answered, manifest.inputs, analysed.notes)


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
        for example in section.examples:
            console.print(Text(example.caption))
            for name, fact in example.facts.items():
                console.print(Text(f"  {name}: {fact}", style="dim"))
        console.print()


def write_refused(tag: str, error: NotAsInTrainingError, home: Path) -> Path:
    """Writes a page about a bundle that does not decide as the author's own pipeline, and returns where it is."""
    from rollout.bundle.report import Section, describe_reference  # noqa: PLC0415
    from rollout.bundle.report_page import render  # noqa: PLC0415

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
