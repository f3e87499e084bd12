"""``rollout build``: train and pack what a folder's recipe describes."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("versions", nargs=-1)
def build(folder: Path, versions: tuple[str, ...]) -> None:
    """Train and pack the VERSIONS of the model in FOLDER that the store does not have yet; all by default.

    FOLDER, such as models/digits, holds a recipe.py with a RECIPE.
    """
    build_missing(folder, versions)


def build_missing(folder: Path, versions: tuple[str, ...] = ()) -> str:
    """Trains and packs versions that the store does not have, and returns the model's name.

    Raises:
        ConfigError: If there is no recipe, or it does not know a version.
    """
    from rollout.bundle.store import bundle_exists  # noqa: PLC0415  the store imports BentoML
    from rollout.training.build import build_version  # noqa: PLC0415
    from rollout.training.recipe import load_recipe  # noqa: PLC0415

    console = Console(highlight=False)
    recipe = load_recipe(folder)
    for version in versions or tuple(recipe.versions):
        tag = f"{recipe.name}:{version}"
        recipe.version(version)
        if bundle_exists(tag):
            console.print(f"{tag} is in the store already")
            continue
        start = time.monotonic()
        with console.status(tag) as status:

            def show(step: str, tag: str = tag) -> None:
                status.update(f"{tag}: {step}")
                if not console.is_terminal:
                    console.print(f"{tag}: {step}")

            manifest = build_version(recipe, version, show)
        console.print(f"{tag} is trained, compared and packed ({time.monotonic() - start:.0f} s)")
        for words, variants in (("kept", manifest.variants), ("left out", manifest.left_out)):
            if variants:
                console.print(f"  {words}: {', '.join(variants)}")
        console.print(f"  `rollout report {tag}` shows figures, parity and calibration")
    return recipe.name
