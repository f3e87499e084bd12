"""Building: from a recipe to a bundle in the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rollout.bundle.lineage import hash_rows
from rollout.bundle.manifest import Manifest
from rollout.bundle.pack import pack
from rollout.training.checks import check_data
from rollout.training.recipe import Dataset, Recipe


def build_version(recipe: Recipe, name: str, on_step: Callable[[str], None]) -> Manifest:
    """Checks the data, trains a version, and packs it.

    Raises:
        BundleError: If it cannot be packed.
    """
    on_step("looking at the data")
    version, dataset = recipe.version(name), recipe.load()
    findings = check_data(dataset, recipe.inputs, version.task)
    on_step(f"training on {len(dataset.train.targets):,} rows")
    return pack(
        recipe.train(name, dataset.train, recipe.seed),
        name=recipe.name,
        version=name,
        inputs=recipe.inputs,
        task=version.task,
        calibration=dataset.calibration,
        evaluation=dataset.evaluation,
        lineage=describe_version(recipe, name, dataset),
        findings=findings,
        flip_rate=version.flip_rate,
        on_step=on_step,
    )


def describe_version(recipe: Recipe, name: str, dataset: Dataset) -> dict[str, Any]:
    """Returns the seeds, data and hyperparameters of a version, as its manifest keeps them."""
    described = {
        "seeds": {"random": recipe.seed, "numpy": recipe.seed, "torch": recipe.seed},
        "data": {
            "source": dataset.source,
            "split": dataset.split,
            "rows": [len(part.targets) for part in dataset[:3]],
            "sha256": hash_rows(*dataset[:3]),
        },
        "hyperparameters": dict(recipe.version(name).hyperparameters),
    }
    return msgspec.json.decode(msgspec.json.encode(described), type=dict[str, Any])
