"""Explaining a prediction of a bundle from disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.golden import golden_of
from rollout.bundle.manifest import Manifest
from rollout.bundle.parity import run_in_batches
from rollout.bundle.schema import Arrays
from rollout.bundle.verify import load_variant
from rollout.errors import PredictionFailedError
from rollout.explain.attribution import attribute
from rollout.explain.explanation import Explanation, Question
from rollout.heads import Head

NO_MEANINGS: Mapping[str, str] = {}


def explain(
    folder: Path,
    manifest: Manifest,
    variant: str,
    row: Arrays,
    question: Question,
    *,
    public: Head | None = None,
    meanings: Mapping[str, str] = NO_MEANINGS,
    is_trusted: bool = False,
) -> Explanation:
    """Explains one prediction; its golden examples are the background.

    Args:
        folder: Where the bundle lies; its files are taken as checked.
        manifest: Its manifest.
        variant: The variant that is asked.
        row: The inputs, columns of one row.
        question: What of it is explained.
        public: What is answered in the labels that callers see, where that is another head.
        meanings: What the version's labels mean to them, where that is not the label itself.
        is_trusted: Whether its origin may run code here, see ``load_variant``.

    Raises:
        BundleError: If the variant cannot be loaded.
        InvalidRequestError: If there is no such label or head, or answers of this kind have no number to explain.
        PredictionFailedError: If a number that is asked for is not finite.
    """
    head = manifest.task
    shown = head if public is None else public
    translate = head.translation(shown, meanings)
    run = load_variant(folder, manifest, variant, is_trusted=is_trusted).run

    def numbers(rows: Arrays) -> NDArray[np.float64]:
        found = head.numbers(run_in_batches(run, rows))
        return found if translate is None else translate(found)

    own = numbers(row)
    if not np.isfinite(own).all():
        raise PredictionFailedError("the model's scores for this input are not finite numbers")
    number = shown.explained(own[0].tolist(), question.label, question.head)
    value, attributions, passes = attribute(
        manifest.inputs,
        row,
        golden_of(folder, manifest).inputs,
        lambda rows: number.read(numbers(rows)),
        question.seed,
    )
    return Explanation(
        model=manifest.name,
        version=manifest.version,
        variant=variant,
        explained=number.what,
        label=number.label,
        head=number.head,
        value=value,
        attributions=attributions,
        passes=passes,
        seed=question.seed,
    )
