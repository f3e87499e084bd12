"""``rollout gate``: does a version beat the champion on several seeds?"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from rollout.cli.build import labels_option
from rollout.cli.completion import tag_argument
from rollout.cli.examples import examples
from rollout.cli.output import make_console, make_progress
from rollout.cli.report import show
from rollout.config import load_settings
from rollout.errors import ConfigError

MOST_SEEDS = 200


@click.command(
    epilog=examples(
        "rollout gate digits:v2 --against v1", "rollout gate digits:v2 --against v1 --seeds 10 --margin 0.005"
    )
)
@tag_argument
@click.option("--against", required=True, help="The champion's version.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1, max=MOST_SEEDS),
    default=8,
    show_default=True,
    help="Trainings of each at most; fewer than six can prove nothing.",
)
@click.option("--margin", type=float, help="Largest loss that counts as not worse; 0.01, or 1 % of an error.")
@click.option("--models", type=click.Path(path_type=Path), default=Path("models"), help="Folder of the recipes.")
@labels_option
def gate(
    tag: str, against: str, seeds: int, margin: float | None, models: Path, labels: tuple[Path, ...]
) -> None:
    """Train TAG, such as digits:v2, and the champion with as many seeds as it takes to compare them.

    After each pair it looks whether one is better, and it stops as soon as further seeds would not change the
    answer. Interrupted, it goes on with the seeds that were trained. The result becomes part of the manifest, so
    gate a bundle before you sign it.
    """
    from rollout.bundle.manifest import SIGNATURE  # noqa: PLC0415
    from rollout.bundle.report import describe_gate  # noqa: PLC0415
    from rollout.bundle.store import bundle_exists, open_bundle, replace_manifest  # noqa: PLC0415  it imports BentoML
    from rollout.improvement.labels import kept_files  # noqa: PLC0415
    from rollout.training.again import knowing  # noqa: PLC0415
    from rollout.training.gate import first_look, run_gate  # noqa: PLC0415
    from rollout.training.labels import find_exports  # noqa: PLC0415
    from rollout.training.recipe import load_recipe  # noqa: PLC0415
    from rollout.training.tracking import Tracking, make_trackers  # noqa: PLC0415

    folder, manifest = open_bundle(tag)
    if (folder / SIGNATURE).exists():
        raise ConfigError(
            f"{tag} is signed, and its gate would change what was signed: delete {folder / SIGNATURE}, gate it, "
            "and sign it again"
        )
    recipe = knowing(load_recipe(models / manifest.name), manifest)
    given = [*labels, *kept_files(load_settings().home, recipe.name)]
    exports = {manifest.version: find_exports(manifest, given)}
    if against not in recipe.versions and bundle_exists(f"{recipe.name}:{against}"):
        recipe = knowing(recipe, open_bundle(f"{recipe.name}:{against}")[1])
    if recipe.version(against).needs_labels:
        exports[against] = find_exports(open_bundle(f"{recipe.name}:{against}")[1], given)
    console = make_console()
    if first_look(seeds) is None:
        console.print(f"--seeds {seeds} shows the spread, and can prove nothing: that takes six", soft_wrap=True)
    with make_progress(console, transient=True) as progress:
        task = progress.add_task("training", total=2 * seeds)
        result = run_gate(
            recipe,
            manifest.version,
            against,
            seeds=seeds,
            margin=margin,
            on_step=lambda step: progress.update(task, advance=1, description=step),
            labels=exports,
            home=load_settings().home,
        )
    replace_manifest(msgspec.structs.replace(manifest, gate=result))
    Tracking(make_trackers(None)).gated(manifest, result)
    show([describe_gate(manifest.tag, result)], folder)
