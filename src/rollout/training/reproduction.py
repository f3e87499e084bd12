"""Reproduction: a version trained again from its recipe, compared with its bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from rollout.bundle.artefact import open_source
from rollout.bundle.golden import golden_of
from rollout.bundle.lineage import Changes, describe_surroundings, differences, part_of
from rollout.bundle.manifest import Manifest
from rollout.bundle.parity import run_in_batches
from rollout.bundle.reference import compare_reference
from rollout.bundle.schema import InputSchema
from rollout.errors import BundleError
from rollout.training.build import describe_version
from rollout.training.gate import evaluation_losses
from rollout.training.labels import add_labels
from rollout.training.recipe import Recipe

Outcome = Literal["identical", "within the spread over seeds", "not reproduced"]
# So many standard deviations from the mean over seeds still count as one of them.
WITHIN = 3.0


class Reproduction(NamedTuple):
    """What came of training again.

    Attributes:
        outcome: Whether it is the same version.
        why: The figures behind that.
        changes: What differs now from then, under environment, code and data.
        reference: Why the raw inputs are not decided as by the author's own pipeline today, if they are not.
    """

    outcome: Outcome
    why: str
    changes: dict[str, Changes]
    reference: str = ""


def reproduce_version(
    recipe: Recipe,
    folder: Path,
    manifest: Manifest,
    seeds: int,
    on_step: Callable[[str], None] = lambda _: None,
    labels: Mapping[str, Path] = {},
) -> Reproduction:
    """Trains a version again with its seed and, if it comes out different, with ``seeds`` others.

    Args:
        recipe: The model's recipe.
        folder: Where the bundle lies; its files are taken as checked.
        manifest: Its manifest.
        seeds: Further trainings that the spread is taken over.
        on_step: Called with a line for each training.
        labels: The exports that it learnt from, by their recorded names.

    Raises:
        ConfigError: If it learns from reviewed labels and they cannot be used.
    """
    dataset = add_labels(recipe.load(), recipe, manifest.version, labels)
    version = recipe.version(manifest.version)
    seed = seed_of(manifest)
    on_step(f"training with seed {seed}")
    trained = recipe.train(manifest.version, dataset.train, seed)
    golden = golden_of(folder, manifest)
    parts = {"calibration": dataset.calibration, "evaluation": dataset.evaluation}
    source = open_source(trained, manifest.task, manifest.inputs, parts, version.flip_rate)
    now = {
        **describe_surroundings(),
        "artefact": dict(source.origin),
        **describe_version(recipe, manifest.version, dataset),
    }
    changes = differences(manifest.lineage, now)
    reference = ""
    if version.reference is not None:
        on_step("comparing with the reference")
        try:
            compare_reference(
                version.reference(trained, dataset), InputSchema(recipe.inputs), source, manifest.tag
            )
        except BundleError as error:
            reference = error.detail
    difference = float(np.abs(run_in_batches(source.run, golden.inputs) - golden.scores).max())
    if difference == 0:
        why = "every golden score came out the same, to the last bit"
        return Reproduction("identical", why, changes, reference)
    losses = [float(evaluation_losses(trained, version.task, recipe.inputs, dataset.evaluation).mean())]
    for other in range(seed + 1, seed + 1 + seeds):
        on_step(f"training with seed {other}")
        again = recipe.train(manifest.version, dataset.train, other)
        losses.append(float(evaluation_losses(again, version.task, recipe.inputs, dataset.evaluation).mean()))
    mean, deviation = float(np.mean(losses)), float(np.std(losses, ddof=1))
    was = manifest.task.mean_loss(manifest.metrics)
    is_within = abs(was - mean) <= WITHIN * deviation
    return Reproduction(
        "within the spread over seeds" if is_within else "not reproduced",
        f"a golden score moved by {difference:.2g}; the loss was {was:.4f} and is {mean:.4f} ± {deviation:.4f} "
        f"over {len(losses)} seeds",
        changes,
        reference,
    )


def seed_of(manifest: Manifest) -> int:
    """Returns the seed that a bundle was trained with.

    Raises:
        BundleError: If it does not say so.
    """
    seed = part_of(manifest.lineage, "seeds").get("torch")
    if not isinstance(seed, int):
        raise BundleError(f"{manifest.tag} does not say with which seed it was trained")
    return seed
