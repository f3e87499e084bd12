"""Packing: from a trained module to a bundle in the store, with every variant compared on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray

from rollout.bundle import reliability
from rollout.bundle.calibration import calibrate, half_widths, residuals
from rollout.bundle.evidence import Finding
from rollout.bundle.fields import Field
from rollout.bundle.golden import Golden, choose_golden, write_golden
from rollout.bundle.lineage import describe_surroundings
from rollout.bundle.manifest import LeftOut, Manifest, PackedVariant, hash_files, write_manifest
from rollout.bundle.parity import count, run_in_batches, take
from rollout.bundle.probes import extreme_inputs, random_inputs
from rollout.bundle.schema import Arrays, InputSchema, Labelled
from rollout.bundle.screening import EXAMPLES, Screening
from rollout.bundle.source import Source
from rollout.bundle.store import save_bundle
from rollout.bundle.task import Classification, Scores, Task
from rollout.bundle.variants import VARIANTS
from rollout.clock import utc_now
from rollout.errors import BundleError

RANDOM_ROWS = 256


def pack(
    module: torch.nn.Module,
    *,
    name: str,
    version: str,
    inputs: Mapping[str, Field],
    task: Task,
    calibration: Labelled,
    evaluation: Labelled,
    examples: Arrays | None = None,
    lineage: Mapping[str, Any] | None = None,
    findings: Sequence[Finding] = (),
    flip_rate: float = 0.002,
    on_step: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Packs a module with its preprocessing inside into a bundle in the store.

    The module takes one tensor per field, each of shape ``(rows, *field.shape)``, and returns what its task says.
    A field with a free dimension comes padded, and with the lengths of its rows as the next argument.
    Each variant is compared with it on the evaluation part, on golden, random and extreme inputs and in batches
    of every size; one that does not pass is left out, and nothing is stored unless one that can serve remains.

    Args:
        module: The trained module, in eval mode; it is copied, not changed.
        name: The model.
        version: This version of it.
        inputs: The input schema, in the order of ``forward``'s arguments.
        task: What it answers, and what counts as unsure.
        calibration: Rows that training never saw, to compute temperature, threshold or intervals.
        evaluation: Rows that neither training nor calibration saw.
        examples: Inputs of your own choice that become golden examples, besides those that packing picks; no
            variant may answer one of them differently, a quantized one neither.
        lineage: What made the module: seeds, data, hyperparameters.
        findings: What the checks of the data found.
        flip_rate: Largest share of evaluation rows that a quantized variant may answer differently.
        on_step: Called with a line for each step, to show progress.

    Returns:
        The manifest of the stored bundle.

    Raises:
        BundleError: If the module cannot be trusted, the data do not fit, no variant agrees with the module, the
            calibration part does not give what the task asks for, or the version exists.
    """
    schema = InputSchema(inputs)
    for part in (calibration, evaluation):
        if schema.check_arrays(part.inputs) != len(part.targets):
            raise BundleError("inputs and targets have different numbers of rows")
        task.check_targets(part.targets)
    calibration, evaluation = (_in_order(part, schema) for part in (calibration, evaluation))

    on_step("looking at the module")
    source = Source(module, task, take(evaluation.inputs, slice(0, 2)), schema.fields)
    source.require_masks(evaluation.inputs)
    on_step("calibrating")
    outputs = run_in_batches(source.outputs, calibration.inputs)
    source.task = calibrate(task, outputs, calibration.targets)
    scores = run_in_batches(source.run, evaluation.inputs)
    golden = choose_golden(source.task, evaluation.inputs, scores)
    further = {
        "random": random_inputs(schema.fields, RANDOM_ROWS, seed=0),
        "extreme": extreme_inputs(schema.fields),
    }
    if examples is not None:
        schema.check_arrays(examples)
        further[EXAMPLES] = {name: examples[name] for name in schema.fields}
        golden = _add_examples(golden, further[EXAMPLES], source)
    screening = Screening(source, calibration.inputs, evaluation, scores, golden, further, flip_rate)
    on_step("capturing the graph")
    source.program  # noqa: B018  a module that is not one graph is refused here, with a sentence of its own

    with tempfile.TemporaryDirectory(prefix="rollout-pack-") as temporary:
        folder = Path(temporary)
        variants: dict[str, PackedVariant] = {}
        left_out: dict[str, LeftOut] = {}
        for kind in VARIANTS.values():
            on_step(f"exporting {kind.name} and comparing it with the module")
            outcome = screening.export(kind, folder)
            if isinstance(outcome, LeftOut):
                left_out[kind.name] = outcome
                on_step(f"{kind.name} is left out: {outcome.why}")
            else:
                variants[kind.name] = outcome
        if not any(VARIANTS[variant].is_served for variant in variants):
            reasons = "; ".join(f"{variant}: {outcome.why}" for variant, outcome in left_out.items())
            raise BundleError(f"{name}:{version} is refused: no variant agrees with the source module: {reasons}")
        write_golden(folder, golden)
        metrics, diagram = _measure(source, outputs, calibration.targets, evaluation, scores)
        (folder / reliability.FILE_NAME).write_text(diagram, "utf-8")
        manifest = Manifest(
            name=name,
            version=version,
            inputs=schema.fields,
            task=source.task,
            variants=variants,
            left_out=left_out,
            hashes=hash_files(folder),
            metrics=metrics,
            lineage={**describe_surroundings(), **(lineage or {})},
            findings=list(findings),
            created_at=utc_now(),
        )
        write_manifest(folder, manifest)
        save_bundle(folder, manifest)
    return manifest


def _in_order(part: Labelled, schema: InputSchema) -> Labelled:
    return Labelled({name: part.inputs[name] for name in schema.fields}, part.targets)


def _add_examples(golden: Golden, examples: Arrays, source: Source) -> Golden:
    inputs = {name: np.concatenate([array, examples[name]]) for name, array in golden.inputs.items()}
    return Golden(inputs, np.concatenate([golden.scores, run_in_batches(source.run, examples)]))


def _measure(
    source: Source,
    calibrated_on: NDArray[np.float32],
    calibration_targets: NDArray[Any],
    evaluation: Labelled,
    scores: Scores,
) -> tuple[dict[str, float], str]:
    """Returns the figures of the evaluation part, and its reliability diagram."""
    task, targets = source.task, evaluation.targets
    outputs = run_in_batches(source.outputs, evaluation.inputs)
    right = task.right(scores, targets)
    answered = ~task.needs_review(scores)
    metrics = {"evaluation_rows": float(count(evaluation.inputs)), "review_rate": float((~answered).mean())}
    if isinstance(task, Classification):
        metrics["accuracy"] = float(right.mean())
        if answered.any():
            metrics["accuracy_without_review"] = float(right[answered].mean())
        before, after = (
            reliability.bin_by_confidence(each.max(-1), right) for each in (_softmax(outputs), scores)
        )
        metrics["calibration_error_before"] = before.calibration_error
        metrics["calibration_error"] = after.calibration_error
        return metrics, reliability.draw_confidence(before, after)
    metrics["mean_absolute_error"] = float(task.losses(scores, targets).mean())
    metrics["coverage"] = float(right.mean())
    metrics["mean_interval_width"] = float(scores[:, 1].mean() * 2)
    widths = half_widths(residuals(calibrated_on, calibration_targets), reliability.LEVELS)
    observed = (residuals(outputs, targets)[:, None] <= widths).mean(0)
    return metrics, reliability.draw_coverage(observed, task.coverage)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = scipy.special.softmax(logits, axis=-1)
    return scores
