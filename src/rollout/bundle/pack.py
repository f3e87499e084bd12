"""Packing: from a trained module to a bundle in the store, with every variant compared on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from rollout.bundle.artefact import open_source
from rollout.bundle.baseline import measure_baseline, write_baseline
from rollout.bundle.effort import Packing, take_effort, threads_kept
from rollout.bundle.evidence import Finding
from rollout.bundle.fields import Field
from rollout.bundle.golden import Golden, choose_golden, write_golden
from rollout.bundle.lineage import describe_surroundings
from rollout.bundle.manifest import LeftOut, Manifest, PackedVariant, hash_files, read_manifest, write_manifest
from rollout.bundle.parity import run_in_batches
from rollout.bundle.probes import extreme_inputs, random_inputs
from rollout.bundle.raw_examples import write_raw_examples
from rollout.bundle.reference import Compared, Reference, compare_reference
from rollout.bundle.schema import Arrays, InputSchema, Labelled
from rollout.bundle.screening import EXAMPLES, Screening, require_answers, require_masks, require_numbers
from rollout.bundle.source import Source
from rollout.bundle.store import save_bundle
from rollout.bundle.variants import VARIANTS, to_pack
from rollout.bundle.verify import timed
from rollout.clock import utc_now
from rollout.errors import BundleError
from rollout.heads import Head, Scores, reliability
from rollout.heads.measured import Evaluated
from rollout.judge.baseline import Baseline


@threads_kept()
def pack(
    module: torch.nn.Module | None = None,
    *,
    artefact: Any = None,
    trust_pickle: bool = False,
    name: str,
    version: str,
    inputs: Mapping[str, Field],
    task: Head,
    calibration: Labelled,
    evaluation: Labelled,
    examples: Arrays | None = None,
    reference: Reference | None = None,
    lineage: Mapping[str, Any] | None = None,
    findings: Sequence[Finding] = (),
    flip_rate: float = 0.002,
    variants: Collection[str] | None = None,
    lineage_of: Callable[[Path, Manifest], Mapping[str, Any]] = lambda _folder, _manifest: {},
    on_step: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Packing], None] = lambda _: None,
) -> Manifest:
    """Packs a module with its preprocessing inside, or an artefact, into a bundle in the store.

    The module takes one tensor per field, each of shape ``(rows, *field.shape)``, and returns what its task says.
    A field with a free dimension comes padded, and with the lengths of its rows as the next argument.
    Each variant is compared with it on the evaluation part, on golden, random and extreme inputs and in batches
    of every size; one that does not pass is left out, and nothing is stored unless one that can serve remains.
    Where a row takes longer than 5 ms, batches have the sizes 1 to 9, 16, 17, 32 and 64, there are fewer random
    inputs, all cores compute, and the manifest says how fast each variant is, so that a worker on such a
    processor loads the fastest alone.

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
        variants: Those to pack. Without any, all but ``onnx-fp16``, ``torchscript-fp16`` and
            ``torchscript-bf16``, which pay on a GPU, and these too where there is one.
        lineage_of: Measures the finished bundle, in its folder, before it is stored; returns what its lineage
            says besides.
        on_step: Called with a line for each step, to show progress.
        on_progress: Called after each batch that is scored, with how far packing is and about how long it takes.

    Returns:
        The manifest of the stored bundle.

    Raises:
        NotAsInTrainingError: If the raw inputs of the reference are not decided as there; it has what was found.
        BundleError: If the module or artefact cannot be trusted, the data do not fit, no variant that can serve
            can be made or agrees with it, the calibration part is too small for intervals, or the version exists.
    """
    schema = InputSchema(inputs)
    _check(schema, task, calibration, evaluation)
    calibration, evaluation = (_in_order(part, schema) for part in (calibration, evaluation))

    if (module is None) == (artefact is None):
        raise BundleError("pack takes either a module or an artefact")
    on_step("looking at the module" if artefact is None else "looking at the artefact")
    parts = {"calibration": calibration, "evaluation": evaluation}
    source = open_source(
        module if artefact is None else artefact, task, schema.fields, parts, flip_rate, trust_pickle=trust_pickle
    )
    effort = take_effort(source.run, evaluation.inputs)
    require_answers(source, schema.fields, evaluation.inputs)
    require_masks(source, schema.fields, evaluation.inputs)
    on_step("calibrating")
    outputs = run_in_batches(source.outputs, calibration.inputs, effort.batch_size)
    require_numbers(~np.isnan(outputs), "calibration inputs")
    source.task, review = task.calibrated(outputs, calibration.targets)
    compared = None
    if reference is not None:
        on_step(f"comparing {len(reference.rows):,} raw rows with the reference")
        compared = compare_reference(reference, schema, source, f"{name}:{version}")
    found = run_in_batches(source.outputs, evaluation.inputs, effort.batch_size)
    scores = source.scores(found)
    golden = choose_golden(source.task, evaluation.inputs, scores)
    further = _further_inputs(schema, effort.random_rows, examples)
    if EXAMPLES in further:
        golden = _add_examples(golden, further[EXAMPLES], source)
    kinds = to_pack(variants)
    screening = Screening(
        source,
        calibration.inputs,
        evaluation,
        scores,
        golden,
        further,
        flip_rate,
        effort,
        on_progress,
        len(kinds),
        None if compared is None else compared.probe,
    )

    with tempfile.TemporaryDirectory(prefix="rollout-pack-") as temporary:
        folder = Path(temporary)
        kept: dict[str, PackedVariant] = {}
        left_out: dict[str, LeftOut] = {}
        for kind in kinds:
            on_step(f"exporting {kind.name} and comparing it with the source")
            outcome = screening.export(kind, folder)
            if isinstance(outcome, LeftOut):
                left_out[kind.name] = outcome
                on_step(f"{kind.name} is left out: {outcome.why}")
            else:
                kept[kind.name] = outcome
        if not any(VARIANTS[variant].is_served for variant in kept):
            raise BundleError(f"{name}:{version} is refused: {_why_none(left_out)}")
        write_golden(folder, golden)
        write_baseline(folder, _baseline(source.task, schema, evaluation, scores))
        if compared is not None:
            _write_compared(folder, compared)
        evaluated = (outputs, calibration.targets), found, scores, evaluation.targets
        metrics = _measure(source.task, Evaluated(*evaluated), folder)
        manifest = Manifest(
            name=name,
            version=version,
            inputs=schema.fields,
            task=source.task,
            variants=kept,
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
        if effort.is_costly:
            manifest = timed(folder, manifest, golden)
        return _stored(folder, manifest, lineage_of)


def _further_inputs(schema: InputSchema, rows: int, examples: Arrays | None) -> dict[str, Arrays]:
    """Returns inputs beside the evaluation part: random, extreme, and the author's examples if there are some."""
    further = {
        "random": random_inputs(schema.fields, rows, seed=0),
        "extreme": extreme_inputs(schema.fields),
    }
    if examples is not None:
        schema.check_arrays(examples)
        further[EXAMPLES] = {name: examples[name] for name in schema.fields}
    return further


def _stored(
    folder: Path, manifest: Manifest, lineage_of: Callable[[Path, Manifest], Mapping[str, Any]]
) -> Manifest:
    manifest = msgspec.structs.replace(manifest, lineage={**manifest.lineage, **lineage_of(folder, manifest)})
    write_manifest(folder, manifest)
    return read_manifest(save_bundle(folder, manifest))  # what JSON makes of it may differ


def _baseline(task: Head, schema: InputSchema, evaluation: Labelled, scores: Scores) -> Baseline:
    losses = task.losses(scores, evaluation.targets) if task.has_loss and task.is_rate else None
    return measure_baseline(schema.fields, task, evaluation.inputs, task.numbers(scores), losses)


def _check(schema: InputSchema, task: Head, *parts: Labelled) -> None:
    task.check_inputs(schema.fields)
    for part in parts:
        if schema.check_arrays(part.inputs) != len(part.targets):
            raise BundleError("inputs and targets have different numbers of rows")
        task.check_targets(part.targets)


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


def _measure(task: Head, evaluated: Evaluated, folder: Path) -> dict[str, float]:
    """Returns the figures of the evaluation part, and writes a diagram into the bundle if there is one."""
    found = task.measured(evaluated)
    if found.diagram:
        (folder / reliability.FILE_NAME).write_text(found.diagram, "utf-8")
    return {
        "evaluation_rows": float(len(evaluated.scores)),
        "review_rate": float(task.needs_review(evaluated.scores).mean()),
        **found.figures,
    }
