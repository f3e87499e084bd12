"""Packing: from a trained module to a bundle in the store, with every variant compared on the way."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rollout.__about__ import __version__
from rollout.bundle.calibration import review_threshold
from rollout.bundle.export import EXPORTERS, Scorer, quiet_exporters
from rollout.bundle.fields import Field
from rollout.bundle.golden import choose_golden, write_golden
from rollout.bundle.manifest import Manifest, hash_files, write_manifest
from rollout.bundle.parity import compare, run_in_batches, synthetic_inputs, take
from rollout.bundle.runtimes import RUNTIMES, Scores
from rollout.bundle.schema import Arrays, InputSchema
from rollout.bundle.store import save_bundle
from rollout.bundle.verify import require_parity
from rollout.clock import utc_now
from rollout.errors import BundleError

SYNTHETIC_ROWS = 256
RECORDED_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


class Labelled(NamedTuple):
    """One part of a data set.

    Attributes:
        inputs: For each field an array of shape ``(rows, *field.shape)``.
        targets: The index of the true class of each row, integers of shape ``(rows,)``.
    """

    inputs: Arrays
    targets: NDArray[Any]


def pack(
    module: torch.nn.Module,
    *,
    name: str,
    version: str,
    inputs: Mapping[str, Field],
    labels: Sequence[str],
    calibration: Labelled,
    evaluation: Labelled,
    lineage: Mapping[str, Any] | None = None,
    risk: float = 0.02,
    on_step: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Packs a classifier with its preprocessing inside into a bundle in the store.

    The module takes one tensor per field, each of shape ``(rows, *field.shape)``, and returns logits of shape
    ``(rows, len(labels))``. It is exported from eval mode, each variant is compared with it on the evaluation
    part, on random and on extreme inputs and in batches of several sizes, and nothing is stored unless all
    agree.

    Args:
        module: The trained module; it is copied, not changed.
        name: The model.
        version: This version of it.
        inputs: The input schema, in the order of ``forward``'s arguments.
        labels: The classes, in the order of the logits.
        calibration: Rows that training never saw, to compute the review threshold.
        evaluation: Rows that neither training nor calibration saw.
        lineage: What made the module: seeds, data, hyperparameters.
        risk: Largest error wanted among predictions that nobody reviews.
        on_step: Called with a line for each step, to show progress.

    Returns:
        The manifest of the stored bundle.

    Raises:
        BundleError: If the module stays in training mode, the data do not fit the schema, a variant disagrees,
            no review threshold reaches ``risk``, or the version exists.
    """
    schema = InputSchema(inputs)
    for part in (calibration, evaluation):
        if schema.check_arrays(part.inputs) != len(part.targets):
            raise BundleError("inputs and targets have different numbers of rows")
    scorer = Scorer(module)

    on_step("scoring the calibration and the evaluation part")
    calibration_scores = run_in_batches(scorer.run, calibration.inputs)
    if calibration_scores.shape[1:] != (len(labels),):
        raise BundleError(
            f"the module gives {calibration_scores.shape[1:]} scores a row for {len(labels)} labels"
        )
    threshold = review_threshold(
        calibration_scores.max(-1), calibration_scores.argmax(-1) == calibration.targets, risk=risk
    )
    scores = run_in_batches(scorer.run, evaluation.inputs)
    probes = _concatenate(evaluation.inputs, synthetic_inputs(schema.fields, SYNTHETIC_ROWS, seed=0))
    expected = run_in_batches(scorer.run, probes)

    with tempfile.TemporaryDirectory(prefix="rollout-pack-") as temporary:
        folder = Path(temporary)
        variants = {}
        metrics = _metrics(scores, evaluation.targets, threshold)
        for variant, (file, export) in EXPORTERS.items():
            on_step(f"exporting {variant} and comparing it with the module on {len(expected)} rows")
            (folder / file).parent.mkdir()
            with quiet_exporters():
                export(scorer, take(evaluation.inputs, slice(0, 2)), folder / file)
            runtime = RUNTIMES[variant](folder / file)
            parity = compare(expected, run_in_batches(runtime.run, probes), threshold)
            require_parity(f"{name}:{version}", variant, parity)
            metrics[f"largest_difference_{variant}"] = parity.largest_difference
            variants[variant] = file
        write_golden(folder, choose_golden(evaluation.inputs, scores))
        manifest = Manifest(
            name=name,
            version=version,
            inputs=schema.fields,
            labels=[str(label) for label in labels],
            review_threshold=threshold,
            variants=variants,
            hashes=hash_files(folder),
            metrics=metrics,
            lineage={**_environment(), **(lineage or {})},
            created_at=utc_now(),
        )
        write_manifest(folder, manifest)
        save_bundle(folder, manifest)
    return manifest


def _concatenate(first: Arrays, second: Arrays) -> Arrays:
    return {name: np.concatenate([array, second[name]]) for name, array in first.items()}


def _metrics(scores: Scores, targets: NDArray[Any], threshold: float) -> dict[str, float]:
    correct = scores.argmax(-1) == targets
    answered = scores.max(-1) >= threshold
    metrics = {
        "evaluation_rows": float(len(targets)),
        "accuracy": float(correct.mean()),
        "review_rate": float((~answered).mean()),
    }
    if answered.any():
        metrics["accuracy_without_review"] = float(correct[answered].mean())
    return metrics


def _environment() -> dict[str, Any]:
    return {
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {package: importlib.metadata.version(package) for package in RECORDED_PACKAGES},
            "rollout": __version__,
        },
        "code": {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()
