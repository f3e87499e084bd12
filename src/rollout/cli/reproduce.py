"""``rollout reproduce``: train a version again from its manifest, and say whether it comes out the same."""

from __future__ import annotations

from pathlib import Path

import click

from rollout.cli.build import labels_option
from rollout.cli.completion import tag_argument
from rollout.cli.output import Text, make_console, working
from rollout.config import load_settings


@click.command()
@tag_argument
@click.option(
    "--seeds", type=click.IntRange(min=2), default=4, show_default=True, help="Trainings for the spread."
)
@click.option("--models", type=click.Path(path_type=Path), default=Path("models"), help="Folder of the recipes.")
@labels_option
def reproduce(tag: str, seeds: int, models: Path, labels: tuple[Path, ...]) -> None:
    """Train TAG, such as digits:v2, again with its own seed: identical, within the spread over seeds, or not.

    Exit code 1 says that it is not, or that it does not decide as the author's own pipeline does today.
    """
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML
    from rollout.improvement.labels import kept_files  # noqa: PLC0415
    from rollout.training.again import knowing  # noqa: PLC0415
    from rollout.training.labels import find_exports  # noqa: PLC0415
    from rollout.training.recipe import load_recipe  # noqa: PLC0415
    from rollout.training.reproduction import reproduce_version  # noqa: PLC0415

    folder, manifest = open_bundle(tag)
    exports = find_exports(manifest, [*labels, *kept_files(load_settings().home, manifest.name)])
    console = make_console()
    with working(console, f"training {tag} again") as show:
        recipe = knowing(load_recipe(models / manifest.name), manifest)
        result = reproduce_version(recipe, folder, manifest, seeds, show, exports)
    console.print(Text.assemble((result.outcome, "bold"), f": {result.why}"), soft_wrap=True)
    if result.reference:
        console.print(f"trained again, {result.reference}", soft_wrap=True)
    for head, changed in result.changes.items():
        if changed:
            console.print(f"{head} differs now: " + ", ".join(changed), soft_wrap=True)
    if not any(result.changes.values()):
        console.print("environment, code and data are the same as then")
    if result.outcome == "not reproduced" or result.reference:
        raise SystemExit(1)
