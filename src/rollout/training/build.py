"""Building: from a recipe to a bundle in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rollout.bundle.lineage import hash_rows
from rollout.bundle.manifest import Manifest
from rollout.bundle.pack import pack
from rollout.training.checks import check_data
from rollout.training.labels import add_labels
from rollout.training.recipe import Dataset, Recipe


def build_version(
    recipe: Recipe, name: str, on_step: Callable[[str], None], labels: Mapping[str, Path] = {}
) -> Manifest:
    """Checks the data, trains a version, and packs it.

    Args:
        recipe: The model's recipe.
        name: The version.
        on_step: Called with a line for each step.
        labels: Exports of the review queue by name, for a version that learns from them.

    Raises:
        ConfigError: If it learns from reviewed labels and they cannot be used.
        BundleError: If it cannot be packed.
    """
    on_step("looking at the data")
    version, dataset = recipe.version(name), add_labels(recipe.load(), recipe, name, labels)
    findings = check_data(dataset, recipe.inputs, version.task)
    on_step(f"training on {len(dataset.train.targets):,} rows")
    trained = recipe.train(name, dataset.train, recipe.seed)
    return pack(
        artefact=trained,
        name=recipe.name,
        version=name,
        inputs=recipe.inputs,
        task=version.task,
        calibration=dataset.calibration,
        evaluation=dataset.evaluation,
        reference=version.reference and version.reference(trained, dataset),
        lineage=describe_version(recipe, name, dataset),
        findings=findings,
        flip_rate=version.flip_rate,
        on_step=on_step,
    )


def describe_version(recipe: Recipe, name: str, dataset: Dataset) -> dict[str, Any]:
    """Returns the seeds, data and hyperparameters of a version, as its manifest keeps them."""
    described: dict[str, Any] = {
        "seeds": {"random": recipe.seed, "numpy": recipe.seed, "torch": recipe.seed},
        "data": {
            "source": dataset.source,
            "split": dataset.split,
            "rows": [len(part.targets) for part in dataset[:3]],
            "sha256": hash_rows(*dataset[:3]),
        },
        "hyperparameters": dict(recipe.version(name).hyperparameters),
    }
    if dataset.labels is not None:
        described["data"]["labels"] = dataset.labels
    return msgspec.json.decode(msgspec.json.encode(described), type=dict[str, Any])
