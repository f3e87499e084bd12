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
from rollout.bundle.artefact import open_source
from rollout.bundle.calibration import calibrate, half_widths, residuals
from rollout.bundle.evidence import Finding
from rollout.bundle.fields import Field
from rollout.bundle.golden import Golden, choose_golden, write_golden
from rollout.bundle.lineage import describe_surroundings
from rollout.bundle.manifest import LeftOut, Manifest, PackedVariant, hash_files, read_manifest, write_manifest
from rollout.bundle.parity import count, run_in_batches
from rollout.bundle.probes import extreme_inputs, random_inputs
from rollout.bundle.raw_examples import write_raw_examples
from rollout.bundle.reference import Compared, Reference, compare_reference
from rollout.bundle.schema import Arrays, InputSchema, Labelled
from rollout.bundle.screening import EXAMPLES, Screening, require_answers, require_masks, require_numbers
from rollout.bundle.source import Source
from rollout.bundle.store import save_bundle
from rollout.bundle.task import Classification, Scores, Task
from rollout.bundle.variants import VARIANTS
from rollout.clock import utc_now
from rollout.errors import BundleError

RANDOM_ROWS = 256


def pack(
    module: torch.nn.Module | None = None,
    *,
    artefact: Any = None,
    trust_pickle: bool = False,
    name: str,
    version: str,
    inputs: Mapping[str, Field],
    task: Task,
    calibration: Labelled,
    evaluation: Labelled,
    examples: Arrays | None = None,
    reference: Reference | None = None,
    lineage: Mapping[str, Any] | None = None,
    findings: Sequence[Finding] = (),
    flip_rate: float = 0.002,
    on_step: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Packs a module with its preprocessing inside, or an artefact, into a bundle in the store.

    The module takes one tensor per field, each of shape ``(rows, *field.shape)``, and returns what its task says.
    A field with a free dimension comes padded, and with the lengths of its rows as the next argument.
    Each variant is compared with it on the evaluation part, on golden, random and extreme inputs and in batches
    of every size; one that does not pass is left out, and nothing is stored unless one that can serve remains.

    Args:
        module: The trained module, in eval mode; it is copied, not changed.
        artefact: What takes its place: the path of a TorchScript file, an ONNX file, a ``torch.export`` package,
            an XGBoost model (JSON or UBJ) or a LightGBM model (text), or such an object, or a fitted estimator or
            pipeline of scikit-learn. Reading TorchScript or a ``torch.export`` package can run code. An estimator
            is compared with its own predictions on both parts, rows with missing values included. Probabilities
            become logits by their logarithm, taken from 1e-6 on.
        trust_pickle: Whether ``artefact`` may be the path of a pickle, which runs whatever code is in it.
        name: The model.
        version: This version of it.
        inputs: The input schema, in the order of ``forward``'s arguments.
        task: What it answers, and what counts as unsure.
        calibration: Rows that training never saw, to compute temperature, threshold or intervals.
        evaluation: Rows that neither training nor calibration saw.
        examples: Inputs of your own choice that become golden examples, besides those that packing picks; no
            variant may answer one of them differently, a quantized one neither.
        reference: Raw inputs, and your own way from there to an answer, which the bundle is compared with.
        lineage: What made the module: seeds, data, hyperparameters.
        findings: What the checks of the data found.
        flip_rate: Largest share of evaluation rows that a quantized variant may answer differently, and of both
            parts that a converted estimator may.
        on_step: Called with a line for each step, to show progress.

    Returns:
        The manifest of the stored bundle.

    Raises:
        NotAsInTrainingError: If the raw inputs of the reference are not decided as there; it has what was found.
        BundleError: If the module or artefact cannot be trusted, the data do not fit, no variant that can serve
            can be made or agrees with it, the calibration part is too small for intervals, or the version exists.
    """
    schema = InputSchema(inputs)
    for part in (calibration, evaluation):
        if schema.check_arrays(part.inputs) != len(part.targets):
            raise BundleError("inputs and targets have different numbers of rows")
        task.check_targets(part.targets)
    calibration, evaluation = (_in_order(part, schema) for part in (calibration, evaluation))

    if (module is None) == (artefact is None):
        raise BundleError("pack takes either a module or an artefact")
    on_step("looking at the module" if artefact is None else "looking at the artefact")
    parts = {"calibration": calibration, "evaluation": evaluation}
    source = open_source(
        module if artefact is None else artefact, task, schema.fields, parts, flip_rate, trust_pickle=trust_pickle
    )
    require_answers(source, schema.fields, evaluation.inputs)
    require_masks(source, schema.fields, evaluation.inputs)
    on_step("calibrating")
    outputs = run_in_batches(source.outputs, calibration.inputs)
    require_numbers(~np.isnan(outputs), "calibration inputs")
    source.task, review = calibrate(task, outputs, calibration.targets)
    compared = None
    if reference is not None:
        on_step(f"comparing {len(reference.rows):,} raw rows with the reference")
        compared = compare_reference(reference, schema, source, f"{name}:{version}")
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
    screening = Screening(
        source,
        calibration.inputs,
        evaluation,
        scores,
        golden,
        further,
        flip_rate,
        None if compared is None else compared.probe,
    )

    with tempfile.TemporaryDirectory(prefix="rollout-pack-") as temporary:
        folder = Path(temporary)
        variants: dict[str, PackedVariant] = {}
        left_out: dict[str, LeftOut] = {}
        for kind in VARIANTS.values():
            on_step(f"exporting {kind.name} and comparing it with the source")
            outcome = screening.export(kind, folder)
            if isinstance(outcome, LeftOut):
                left_out[kind.name] = outcome
                on_step(f"{kind.name} is left out: {outcome.why}")
            else:
                variants[kind.name] = outcome
        if not any(VARIANTS[variant].is_served for variant in variants):
            raise BundleError(f"{name}:{version} is refused: {_why_none(left_out)}")
        write_golden(folder, golden)
        if compared is not None:
            _write_compared(folder, compared)
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
            review=review,
            lineage={**describe_surroundings(), "artefact": dict(source.origin), **(lineage or {})},
            findings=list(findings),
            fast_path=source.fast_path_difference(evaluation.inputs, scores),
            reference=None if compared is None else compared.result,
            created_at=utc_now(),
        )
        write_manifest(folder, manifest)
        return read_manifest(save_bundle(folder, manifest))  # what JSON makes of it may differ


def _in_order(part: Labelled, schema: InputSchema) -> Labelled:
    return Labelled({name: part.inputs[name] for name in schema.fields}, part.targets)


def _why_none(left_out: Mapping[str, LeftOut]) -> str:
    names: dict[str, list[str]] = {}
    for variant, outcome in left_out.items():
        names.setdefault(outcome.why, []).append(variant)
    reasons = "; ".join(f"{' and '.join(alike)}: {why}" for why, alike in names.items())
    return f"no variant agrees with the source: {reasons}"


def _add_examples(golden: Golden, examples: Arrays, source: Source) -> Golden:
    inputs = {name: np.concatenate([array, examples[name]]) for name, array in golden.inputs.items()}
    return Golden(inputs, np.concatenate([golden.scores, run_in_batches(source.run, examples)]))


def _write_compared(folder: Path, compared: Compared) -> None:
    write_raw_examples(folder, compared.examples)
    for name, picture in compared.pictures.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(picture)


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
