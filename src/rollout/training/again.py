"""A version that is trained again on more labels: a version of its own, which the recipe need not declare."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from rollout.bundle.manifest import Manifest
from rollout.training.recipe import Recipe


def declared(manifest: Manifest) -> str:
    """Returns the version of the recipe by which a bundle was trained: another one than its own, or that."""
    return str(manifest.lineage.get("again", manifest.version))


def trained_again(recipe: Recipe, name: str, of: str) -> Recipe:
    """Adds a version to a recipe: one that it has, trained on reviewed labels as well.

    Args:
        recipe: The recipe.
        name: What the version is called.
        of: The version of the recipe.

    Raises:
        ConfigError: If it has no version ``of``.
    """
    version = recipe.version(of)._replace(needs_labels=True, again=of)
    return msgspec.structs.replace(recipe, versions={**recipe.versions, name: version})


def knowing(recipe: Recipe, manifest: Manifest) -> Recipe:
    """Adds the version that a bundle is, if it was trained again.

    Raises:
        ConfigError: If the recipe does not have the version that it is trained again as.
    """
    of = declared(manifest)
    return recipe if of == manifest.version else trained_again(recipe, manifest.version, of)


def next_name(of: str, number: int, taken: Collection[str]) -> str:
    """Returns the first free name of a version that is trained again.

    Example:
        >>> next_name("v2", 1, {"v1", "v2", "v2.1"})
        'v2.2'
    """
    while f"{of}.{number}" in taken:
        number += 1
    return f"{of}.{number}"
