"""``rollout build``: train and pack what a folder's recipe describes."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from rollout.bundle.manifest import Manifest, read_manifest
from rollout.bundle.variants import VARIANTS
from rollout.bundle.verify import servable
from rollout.cli.examples import examples
from rollout.cli.output import Console, make_console, make_table, working
from rollout.config import load_settings
from rollout.errors import BundleError, ConfigError
from rollout.words import duration

if TYPE_CHECKING:
    from rollout.bundle.effort import Packing
    from rollout.training.runs import Progress

BAR = 20

labels_option = click.option(
    "--labels",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Reviewed labels that a version learns from, JSON lines as exported; may be given several times.",
)


@click.command(
    epilog=examples("rollout build models/digits", "rollout build models/digits v3 --labels labels.jsonl")
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("versions", nargs=-1)
@click.option("--budget", help="Pick the smallest student that answers a row in this time, such as 2ms.")
@click.option(
    "--margin",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    help="By how much the loss of that may be above its teacher's.",
)
@labels_option
def build(
    folder: Path, versions: tuple[str, ...], budget: str | None, margin: float, labels: tuple[Path, ...]
) -> None:
    """Train and pack the VERSIONS of the model in FOLDER that the store does not have yet; all by default.

    FOLDER, such as models/digits, holds a recipe.py with a RECIPE. With --budget, it then picks among the
    students of these, which have a teacher, by how they do on the calibration part.
    """
    seconds = None if budget is None else parse_seconds(budget)
    build_missing(folder, versions, labels)
    if seconds is not None:
        pick_student(folder, versions, seconds, margin)


def build_missing(folder: Path, versions: tuple[str, ...] = (), labels: tuple[Path, ...] = ()) -> str:
    """Trains and packs versions that the store does not have, and returns the model's name.

    Without ``labels``, a version that learns from reviewed labels is built only if it is asked for by name, and
    then refused.

    Raises:
        BundleError: If a version is refused.
        ConfigError: If there is no recipe, it does not know a version, or the labels cannot be used.
    """
    from rollout.bundle.reference import NotAsInTrainingError  # noqa: PLC0415
    from rollout.bundle.store import bundle_exists, bundle_path  # noqa: PLC0415  the store imports BentoML
    from rollout.cli.report import write_refused  # noqa: PLC0415
    from rollout.training.build import build_version  # noqa: PLC0415
    from rollout.training.labels import in_words, name_exports  # noqa: PLC0415
    from rollout.training.recipe import ReviewedLabels, load_recipe  # noqa: PLC0415
    from rollout.training.tracking import Tracking, make_trackers  # noqa: PLC0415

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
            Tracking(make_trackers(None)).complete(read_manifest(bundle_path(tag)))
            continue
        if learns and not exports and not versions:
            command = f"rollout build {folder} {version} --labels FILE"
            console.print(
                f"{tag} learns from reviewed labels and is left out; `{command}` builds it", soft_wrap=True
            )
            continue
        start = time.monotonic()
        with working(console, tag) as say_now:
            steps = Steps(console, tag, say_now)
            try:
                manifest = build_version(
                    recipe,
                    version,
                    steps,
                    exports,
                    home=load_settings().home,
                    on_progress=lambda now, tag=tag: say_now(f"{tag}: {in_a_bar(now)}"),  # type: ignore[misc]
                    on_packing=steps.packing,
                )
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


def pick_student(folder: Path, versions: tuple[str, ...], seconds: float, margin: float) -> None:
    """Shows which students are small, fast and good enough, and picks the smallest.

    Raises:
        BundleError: If none is, with what each misses.
    """
    from rollout.training.recipe import load_recipe  # noqa: PLC0415
    from rollout.training.students import consider  # noqa: PLC0415

    console, recipe = make_console(), load_recipe(folder)
    with working(console, "timing students and teachers"):
        considered = consider(recipe, versions or tuple(recipe.versions), seconds, margin)
    table = make_table(f"students of {recipe.name} on the calibration part, the smallest first")
    for column in ("version", "variant"):
        table.add_column(column)
    for column in ("size", "one row", "loss", "above its teacher's"):
        table.add_column(column, justify="right")
    for each in considered:
        side = each.side
        figures = f"{side.size / 1024:,.1f} KiB", duration(side.row_seconds), f"{side.loss.mean:.4f}"
        table.add_row(side.version, side.variant, *figures, f"{each.worse:+.4f}")
    console.print(table)
    picked = next((each for each in considered if not each.misses), None)
    if picked is None:
        missed = "; ".join(f"{each.side.version} {', and '.join(each.misses)}" for each in considered)
        raise BundleError(f"no student of {recipe.name} is good enough: {missed}")
    tag = f"{recipe.name}:{picked.side.version}"
    console.print(
        f"{tag} is the smallest that answers a row within {duration(seconds)} and loses no more than "
        f"{margin:g}; `rollout report {tag}` shows it beside its teacher on the evaluation part, which had no "
        "say in this",
        soft_wrap=True,
    )


def parse_seconds(text: str) -> float:
    """Reads a time such as ``2ms``, ``500us`` or ``0.1s``.

    Raises:
        ConfigError: If it is something else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)", text)
    seconds = float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[2]] if match else 0.0
    if not seconds > 0:
        raise ConfigError(f"--budget {text}: a time above 0 is wanted, in us, ms or s, such as 2ms")
    return seconds


class Steps:
    """Shows the steps of packing, in a terminal each in the place of the last one.

    Args:
        console: Where to.
        tag: What is packed.
        say_now: Changes the words of a terminal.
    """

    def __init__(self, console: Console, tag: str, say_now: Callable[[str], None]) -> None:
        self._console = console
        self._tag = tag
        self._say_now = say_now
        self._step = ""

    def __call__(self, step: str) -> None:
        """Shows a step that begins."""
        self._step = step
        self._say_now(f"{self._tag}: {step}")
        if not self._console.is_terminal:
            self._console.print(f"{self._tag}: {step}")

    def packing(self, now: Packing) -> None:
        """Shows how far packing is, beside its step."""
        self._say_now(
            f"{self._tag}: {bar(now.share)} about {duration(now.seconds_left, digits=2)} left, {self._step}"
        )


def bar(share: float) -> str:
    """Draws a share as a bar and in percent."""
    done = round(BAR * share)
    return f"{'━' * done}{'╌' * (BAR - done)} {share:.0%}"


def in_a_bar(now: Progress) -> str:
    """Returns how far a training is, as a bar and its losses."""
    validation = "" if math.isnan(now.validation) else f", {now.validation:.4g} on validation rows"
    return f"training {bar(now.step / now.steps)}, loss {now.loss:.4g}{validation}"


def show_packed(console: Console, manifest: Manifest) -> None:
    """Prints which variants a new bundle has, whether all goes to review, and what serving it takes."""
    for words, variants in (("kept", manifest.variants), ("left out", manifest.left_out)):
        if variants:
            console.print(f"  {words}: {', '.join(variants)}")
    if manifest.task.reviews_everything:
        text, _ = manifest.task.report(manifest.metrics, manifest.review)
        console.print(f"  {text}", soft_wrap=True)
    if manifest.fast_path:
        console.print(f"  {manifest.fast_path}", soft_wrap=True)
    serving = servable(manifest)
    needs_torch = any(VARIANTS[variant].needs_torch for variant in serving)
    needs = (
        "torch, which `pip install 'rollout[pack]'` or the image `torch` has" if needs_torch else "onnxruntime"
    )
    console.print(f"  serving it takes {needs}: {', '.join(serving)}", soft_wrap=True)
    for place, run in manifest.lineage.get("tracking", {}).items():
        console.print(f"  its run in {place}: {run.get('url', run['run'])}", soft_wrap=True)
    console.print(f"  `rollout report {manifest.tag}` shows figures, parity and calibration")
