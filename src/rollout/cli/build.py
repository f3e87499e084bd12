"""``rollout build``: train and pack what a folder's recipe describes."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from rollout.errors import ConfigError


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("versions", nargs=-1)
def build(folder: Path, versions: tuple[str, ...]) -> None:
    """Train and pack the VERSIONS of the model in FOLDER that the store does not have yet; all by default.

    FOLDER, such as models/digits, holds a recipe.py with NAME, VERSIONS and build(version, on_step).
    """
    build_missing(folder, versions)


def build_missing(folder: Path, versions: tuple[str, ...] = ()) -> str:
    """Trains and packs versions that the store does not have, and returns the model's name.

    Raises:
        ConfigError: If there is no recipe, or it does not know a version.
    """
    from rollout.bundle.store import bundle_exists  # noqa: PLC0415  the store imports BentoML

    console = Console(highlight=False)
    if not (folder / "recipe.py").is_file():
        raise ConfigError(f"{folder} has no recipe.py")
    root = folder.resolve().parent.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    recipe = importlib.import_module(f"{folder.resolve().parent.name}.{folder.resolve().name}.recipe")
    for version in versions or tuple(recipe.VERSIONS):
        tag = f"{recipe.NAME}:{version}"
        if version not in recipe.VERSIONS:
            raise ConfigError(f"{folder} has no version {version}; it has {', '.join(recipe.VERSIONS)}")
        if bundle_exists(tag):
            console.print(f"{tag} is in the store already")
            continue
        start = time.monotonic()
        with console.status(tag) as status:

            def show(step: str, tag: str = tag) -> None:
                status.update(f"{tag}: {step}")
                if not console.is_terminal:
                    console.print(f"{tag}: {step}")

            recipe.build(version, show)
        console.print(f"{tag} is trained, compared and packed ({time.monotonic() - start:.0f} s)")
    return str(recipe.NAME)
