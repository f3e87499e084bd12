"""The rows of a recipe and of exports of the review queue, as a bundle answers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.artefact import open_source
from rollout.bundle.fields import Field
from rollout.bundle.lineage import hash_rows, part_of
from rollout.bundle.manifest import Manifest
from rollout.bundle.mistakes import Answered
from rollout.bundle.parity import run_in_batches
from rollout.bundle.schema import InputSchema, Labelled
from rollout.bundle.source import Source
from rollout.bundle.verify import load_variant, servable
from rollout.errors import BundleError
from rollout.heads import Head, Scores
from rollout.training.labels import read_reviewed
from rollout.training.recipe import Dataset, load_recipe

BATCH = 256
EVALUATION = "the evaluation part"
REVIEWED = "reviewed rows"


class Analysed(NamedTuple):
    """Rows to be looked at.

    Attributes:
        answered: They, as the bundle answers them; ``None`` where there are none.
        notes: What is to be known of them, or why there are none, in sentences.
    """

    answered: Answered | None
    notes: list[str]


def evaluation_rows(folder: Path, manifest: Manifest, recipe: Path) -> Analysed:
    """Loads the evaluation part again, which a bundle does not keep.

    Args:
        folder: Where the bundle lies.
        manifest: Its manifest.
        recipe: The folder of its recipe.

    Raises:
        BundleError: If the rows do not fit the bundle, or it cannot be run.
    """
    if not (recipe / "recipe.py").is_file():
        lacking = (
            f"A bundle keeps no rows, and there is no recipe in {recipe} to load them again: nothing is said of "
            "single mistakes. `--models FOLDER` names the folder of the recipes."
        )
        return Analysed(None, [lacking])
    dataset = load_recipe(recipe).load()
    notes = []
    if not is_as_packed(manifest, dataset):
        notes.append("The recipe loads other rows than those that this bundle was packed with: figures differ.")
    return Analysed(answer(folder, manifest, EVALUATION, dataset.evaluation), notes)


def reviewed_rows(folder: Path, manifest: Manifest, exports: Mapping[str, Path]) -> Analysed:
    """Reads what people decided, and lets the bundle answer that again, whichever version answered it first.

    Args:
        folder: Where the bundle lies.
        manifest: Its manifest.
        exports: Exports of the review queue, by name.

    Raises:
        BundleError: If the bundle cannot be run.
        ConfigError: If a row does not fit the bundle.
    """
    if not exports:
        command = f"`rollout review export {manifest.name} --out labels.jsonl`"
        return Analysed(None, [f"No reviewed rows were given: {command} writes them, `--labels FILE` adds them."])
    found = read_reviewed(exports, manifest.name, manifest.inputs, manifest.task)
    notes = [
        "Mostly what a model was unsure of goes to review: the share of mistakes is that of these rows, not of "
        "all traffic, which `rollout review stats` estimates."
    ]
    if left_out := found.left_out_in_words:
        notes.append(f"Left out: {left_out}.")
    if "labels" in part_of(manifest.lineage, "data"):
        notes.append(
            "This version learnt from reviewed labels: of those that are among these, mistakes are rare."
        )
    if found.rows is None:
        return Analysed(None, [*notes, f"No row of {', '.join(exports)} can be looked at."])
    return Analysed(answer(folder, manifest, REVIEWED, found.rows, found.ids), notes)


def answer(folder: Path, manifest: Manifest, name: str, rows: Labelled, names: Sequence[str] = ()) -> Answered:
    """Lets a bundle answer rows, by the variant that comes first in serving.

    Raises:
        BundleError: If the rows do not fit, or the variant cannot be loaded.
    """
    rows = rows.only(manifest.inputs)
    InputSchema(manifest.inputs).check_arrays(rows.inputs)
    manifest.task.check_targets(rows.targets)
    variant = load_variant(folder, manifest, servable(manifest)[0])
    return Answered(name, rows, run_in_batches(variant.run, rows.inputs), names)


def score(trained: Any, head: Head, inputs: Mapping[str, Field], rows: Labelled) -> Scores:
    """Returns the scores of a trained module or another artefact, before calibration.

    Raises:
        BundleError: If it could not be packed, or its outputs are not finite.
    """
    rows = rows.only(inputs)
    scores = run_in_batches(_source(trained, head, inputs, rows).run, rows.inputs, BATCH)
    _require(np.isfinite(scores))
    return scores


def outputs_of(trained: Any, head: Head, inputs: Mapping[str, Field], rows: Labelled) -> NDArray[np.float32]:
    """Returns the outputs of a trained module or another artefact, shape ``(rows, head.width)``.

    Raises:
        BundleError: If it could not be packed, or they are no numbers; a logit may be infinite.
    """
    rows = rows.only(inputs)
    outputs = run_in_batches(_source(trained, head, inputs, rows).outputs, rows.inputs, BATCH)
    _require(~np.isnan(outputs))
    return outputs


def _source(trained: Any, head: Head, inputs: Mapping[str, Field], rows: Labelled) -> Source:
    return open_source(trained, head, inputs, {"evaluation": rows}, flip_rate=1.0)


def _require(is_number: NDArray[np.bool_]) -> None:
    if wrong := int((~is_number.all(-1)).sum()):
        raise BundleError(f"the module gives no finite number for {wrong} of {len(is_number)} rows")


def is_as_packed(manifest: Manifest, dataset: Dataset) -> bool:
    """Whether a data set is the one that a bundle was packed with, as far as its lineage says."""
    data = part_of(manifest.lineage, "data")
    if "labels" in data or "sha256" not in data:  # what it learnt from is more than the recipe loads
        rows = data.get("rows", [])
        return isinstance(rows, list) and rows[1:] in ([], [len(part.targets) for part in dataset[1:3]])
    return bool(data["sha256"] == hash_rows(*dataset[:3]))
