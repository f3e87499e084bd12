"""``rollout gate``: does a version beat the champion on several seeds?"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from rollout.cli.build import labels_option
from rollout.cli.output import make_console, make_progress
from rollout.cli.report import show
from rollout.errors import ConfigError


@click.command()
@click.argument("tag")
@click.option("--against", required=True, help="The champion's version.")
@click.option("--seeds", type=click.IntRange(min=1), default=8, show_default=True, help="Trainings of each.")
@click.option("--margin", type=float, help="Largest loss that counts as not worse; 0.01, or 1 % of an error.")
@click.option("--models", type=click.Path(path_type=Path), default=Path("models"), help="Folder of the recipes.")
@labels_option
def gate(
    tag: str, against: str, seeds: int, margin: float | None, models: Path, labels: tuple[Path, ...]
) -> None:
    """Train TAG, such as digits:v2, and the champion with several seeds each and compare them.

    The result becomes part of the manifest, so gate a bundle before you sign it.
    """
    from rollout.bundle.manifest import SIGNATURE, write_manifest  # noqa: PLC0415
    from rollout.bundle.report import describe_gate  # noqa: PLC0415
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML
    from rollout.training.gate import run_gate  # noqa: PLC0415
    from rollout.training.labels import find_exports  # noqa: PLC0415
    from rollout.training.recipe import load_recipe  # noqa: PLC0415

    folder, manifest = open_bundle(tag)
    if (folder / SIGNATURE).exists():
        raise ConfigError(
            f"{tag} is signed, and its gate would change what was signed: delete {folder / SIGNATURE}, gate it, "
            "and sign it again"
        )
    recipe = load_recipe(models / manifest.name)
    exports = {manifest.version: find_exports(manifest, labels)}
    if recipe.version(against).needs_labels:
        exports[against] = find_exports(open_bundle(f"{recipe.name}:{against}")[1], labels)
    with make_progress(make_console(), transient=True) as progress:
        task = progress.add_task("training", total=2 * seeds)
        result = run_gate(
            recipe,
            manifest.version,
            against,
            seeds=seeds,
            margin=margin,
            on_step=lambda step: progress.update(task, advance=1, description=step),
            labels=exports,
        )
    write_manifest(folder, msgspec.structs.replace(manifest, gate=result))
    show([describe_gate(manifest.tag, result)], folder)
