"""``rollout build``: train and pack what a folder's recipe describes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from rollout.bundle.manifest import Manifest
from rollout.bundle.report import describe_review
from rollout.bundle.task import Classification
from rollout.bundle.variants import VARIANTS
from rollout.bundle.verify import servable
from rollout.cli.output import Console, make_console, working
from rollout.config import load_settings
from rollout.errors import BundleError, ConfigError

labels_option = click.option(
    "--labels",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Reviewed labels that a version learns from, JSON lines as exported; may be given several times.",
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("versions", nargs=-1)
@labels_option
def build(folder: Path, versions: tuple[str, ...], labels: tuple[Path, ...]) -> None:
    """Train and pack the VERSIONS of the model in FOLDER that the store does not have yet; all by default.

    FOLDER, such as models/digits, holds a recipe.py with a RECIPE.
    """
    build_missing(folder, versions, labels)


def build_missing(folder: Path, versions: tuple[str, ...] = (), labels: tuple[Path, ...] = ()) -> str:
    """Trains and packs versions that the store does not have, and returns the model's name.

    Without ``labels``, a version that learns from reviewed labels is built only if it is asked for by name, and
    then refused.

    Raises:
        BundleError: If a version is refused.
        ConfigError: If there is no recipe, it does not know a version, or the labels cannot be used.
    """
    from rollout.bundle.reference import NotAsInTrainingError  # noqa: PLC0415
    from rollout.bundle.store import bundle_exists  # noqa: PLC0415  the store imports BentoML
    from rollout.cli.report import write_refused  # noqa: PLC0415
    from rollout.training.build import build_version  # noqa: PLC0415
    from rollout.training.labels import in_words, name_exports  # noqa: PLC0415
    from rollout.training.recipe import ReviewedLabels, load_recipe  # noqa: PLC0415

    console = make_console()
    recipe, exports = load_recipe(folder), name_exports(labels)
    asked = versions or tuple(recipe.versions)
    if exports and not any(recipe.version(version).needs_labels for version in asked):
        raise ConfigError(f"{recipe.name} {', '.join(asked)}: none learns from labels; leave out --labels")
    not_compared = []
    for version in asked:
        tag = f"{recipe.name}:{version}"
        learns = recipe.version(version).needs_labels
        if bundle_exists(tag):
            console.print(f"{tag} is in the store already")
            continue
        if learns and not exports and not versions:
            command = f"rollout build {folder} {version} --labels FILE"
            console.print(
                f"{tag} learns from reviewed labels and is left out; `{command}` builds it", soft_wrap=True
            )
            continue
        start = time.monotonic()
        with working(console, tag) as say_now:
            try:
                manifest = build_version(recipe, version, show_steps(console, tag, say_now), exports)
            except NotAsInTrainingError as error:
                page = write_refused(tag, error, load_settings().home)
                raise BundleError(f"{error.detail}. {page} shows the stages and the worst rows") from None
        console.print(f"{tag} is trained, compared and packed ({time.monotonic() - start:.0f} s)")
        if used := manifest.lineage["data"].get("labels"):
            console.print(f"  reviewed labels: {in_words(msgspec.convert(used, ReviewedLabels))}")
        show_packed(console, manifest)
        if manifest.reference is None:
            not_compared.append(tag)
    if not_compared:
        console.print(
            f"{', '.join(not_compared)}: nobody has compared whether a raw input is decided as in training; "
            "`Version(reference=…)` does",
            soft_wrap=True,
        )
    return recipe.name


def show_steps(console: Console, tag: str, say_now: Callable[[str], None]) -> Callable[[str], None]:
    """Returns what shows a step of packing: in a terminal in the place of the last one."""

    def show(step: str) -> None:
        say_now(f"{tag}: {step}")
        if not console.is_terminal:
            console.print(f"{tag}: {step}")

    return show


def show_packed(console: Console, manifest: Manifest) -> None:
    """Prints which variants a new bundle has, whether all goes to review, and what serving it takes."""
    for words, variants in (("kept", manifest.variants), ("left out", manifest.left_out)):
        if variants:
            console.print(f"  {words}: {', '.join(variants)}")
    if isinstance(manifest.task, Classification) and manifest.task.review_limit > 1:
        console.print(f"  {describe_review(manifest.task, manifest.review)}", soft_wrap=True)
    serving = servable(manifest)
    needs_torch = any(VARIANTS[variant].needs_torch for variant in serving)
    needs = (
        "torch, which `pip install 'rollout[pack]'` or the image `torch` has" if needs_torch else "onnxruntime"
    )
    console.print(f"  serving it takes {needs}: {', '.join(serving)}", soft_wrap=True)
    console.print(f"  `rollout report {manifest.tag}` shows figures, parity and calibration")
