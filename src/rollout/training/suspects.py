"""Suspects: rows whose labels look wrong to a model that did not learn from them; each head says how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from rollout.bundle.fields import Field
from rollout.bundle.manifest import Manifest
from rollout.bundle.mistakes import Answered
from rollout.bundle.schema import Labelled
from rollout.bundle.verify import servable
from rollout.errors import ConfigError
from rollout.heads import Head
from rollout.training.answered import answer, outputs_of, reviewed_rows
from rollout.training.batches import take
from rollout.training.labels import add_labels, label_keys
from rollout.training.recipe import Recipe

# The part of rows that clients sent. They are not copied into the queue: who is forgotten there would be kept.
REVIEWED = "reviewed"


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A row whose label looks wrong.

    Attributes:
        part: ``train``, ``calibration`` or ``evaluation`` of the recipe's data, or ``reviewed``.
        row: Its number in that part.
        key: What tells it from others, with its label; of a reviewed row, its review item.
        label: The label, in words.
        answer: What the model says, in words.
        quality: How far the label is what the model's scores say, from 0 to 1.
        head: Of several heads, those of which the label looks wrong.
    """

    part: str
    row: int
    key: str
    label: str
    answer: str
    quality: float
    head: str = ""


class Looked(NamedTuple):
    """Rows whose labels were looked at, as a model answers them that did not learn from them.

    Attributes:
        answered: They; ``name`` is the part.
        head: What the model answers.
        variant: What ran it.
        suspects: Those whose labels look wrong, the likeliest first.
    """

    answered: Answered
    head: Head
    variant: str
    suspects: list[Suspect]


def held_out_suspects(
    folder: Path, manifest: Manifest, recipe: Recipe, exports: Mapping[str, Path]
) -> list[Looked]:
    """Looks at calibration and evaluation part, and at reviewed rows, by the bundle, which saw none of them.

    Args:
        folder: Where the bundle lies.
        manifest: Its manifest.
        recipe: The recipe.
        exports: Exports of the review queue, by name.

    Raises:
        BundleError: If the bundle cannot be run, or the rows do not fit it.
        ConfigError: If its labels cannot be checked, or the version learnt from what people reviewed.
    """
    if exports and recipe.version(manifest.version).needs_labels:
        raise ConfigError(
            f"{manifest.tag} learnt from reviewed labels, and cannot tell which of them are wrong: --train looks "
            "at them, with versions that did not"
        )
    dataset = recipe.load()
    _require_labels(manifest.task, dataset.evaluation)
    parts = [
        answer(folder, manifest, name, part, label_keys(part, manifest.inputs))
        for name, part in (("calibration", dataset.calibration), ("evaluation", dataset.evaluation))
    ]
    if exports and (found := reviewed_rows(folder, manifest, exports).answered) is not None:
        parts.append(found._replace(name=REVIEWED))
    return [_look(part, manifest.task, servable(manifest)[0]) for part in parts]


def training_suspects(
    recipe: Recipe,
    version: str,
    exports: Mapping[str, Path],
    folds: int,
    on_step: Callable[[str], None] = lambda _: None,
) -> Looked:
    """Looks at the training part: each fold by a version that was trained on the others.

    What all folds answer calibrates the head, so that numbers have the intervals in whose units they are judged.

    Args:
        recipe: The recipe.
        version: The version, which is trained ``folds`` times.
        exports: Exports of the review queue by name, for a version that learns from them.
        folds: In how many parts the rows are cut.
        on_step: Called with a line for each training.

    Raises:
        BundleError: If a trained module could not be packed, its outputs are not finite, or the rows are too few
            to calibrate by.
        ConfigError: If the version's labels cannot be checked.
    """
    head = recipe.version(version).task
    dataset = recipe.load()
    part = add_labels(dataset, recipe, version, exports).train
    rows, own = len(part.targets), len(dataset.train.targets)
    if rows < 2 * folds:
        raise ConfigError(f"{rows} training rows are too few for {folds} folds")
    _require_labels(head, part)
    fold_of = np.random.default_rng(recipe.seed).permutation(np.arange(rows) % folds)
    outputs = np.zeros((rows, head.width), np.float32)
    for fold in range(folds):
        on_step(f"training without fold {fold + 1} of {folds}")
        inside = fold_of == fold
        trained = recipe.train(version, take(part, ~inside), recipe.seed)
        outputs[inside] = outputs_of(trained, head, recipe.inputs, take(part, inside))
    head, _ = head.calibrated(outputs, part.targets)
    scores = head.scores(outputs)
    answered = Answered("train", part, scores, label_keys(part, recipe.inputs))
    return _look(answered, head, "cross-validation", own)


def as_sent(looked: Looked, suspect: Suspect, inputs: Mapping[str, Field]) -> msgspec.Raw:
    """Returns the inputs of a suspect as a caller could have sent them, JSON."""
    arrays = looked.answered.rows.inputs
    kept = {name: field.keep(None, arrays[name][suspect.row]) for name, field in inputs.items()}
    return msgspec.Raw(msgspec.json.encode({name: value for name, value in kept.items() if value is not UNSET}))


def _require_labels(head: Head, part: Labelled) -> None:
    """Refuses a kind without labels, before anything is trained."""
    head.suspects(np.zeros((0, head.outputs), np.float32), part.targets[:0])


def _look(answered: Answered, head: Head, variant: str, own: int | None = None) -> Looked:
    """Finds the suspects; of the training part, those from ``own`` on are clients' rows that people reviewed."""
    targets: NDArray[Any] = answered.rows.targets
    found = head.suspects(answered.scores, targets)
    suspects = [
        Suspect(
            part=answered.name if own is None or row < own else REVIEWED,
            row=row,
            key=answered.names[row],
            label=head.target_in_words(targets[row]),
            answer=head.in_words(answered.scores[row]),
            quality=quality,
            head=found.heads[place] if found.heads else "",
        )
        for place, (row, quality) in enumerate(zip(found.rows.tolist(), found.quality.tolist(), strict=True))
    ]
    return Looked(answered, head, variant, suspects)
