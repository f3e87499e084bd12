"""Students beside their teachers: size, speed, agreement and accuracy, and the smallest that is good enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import scipy.stats
from numpy.typing import NDArray

from rollout.bundle.evidence import Distillation, Figure, Parted, Side
from rollout.bundle.machine import cpu_name
from rollout.bundle.manifest import Manifest
from rollout.bundle.parity import run_in_batches
from rollout.bundle.schema import Labelled
from rollout.bundle.verify import load_variant, may_load, servable
from rollout.cost import Point, measure_speeds
from rollout.errors import BundleError
from rollout.heads import Head, Scores
from rollout.training.distilling import find_bundle
from rollout.training.recipe import Dataset, Recipe
from rollout.words import duration

SECONDS = 0.5  # for the speeds of each bundle
CONFIDENCE = 0.95
SHOWN = 10


class Measured(NamedTuple):
    """A bundle, as it would serve here.

    Attributes:
        side: Its figures.
        scores: Its scores of the rows.
        losses: Its losses on them, shape ``(rows,)``.
    """

    side: Side
    scores: Scores
    losses: NDArray[np.float64]


class Considered(NamedTuple):
    """A student that may be the smallest that is good enough.

    Attributes:
        side: Its figures, of the calibration part.
        worse: By how much its loss is larger than that of its teacher.
        misses: What it misses, a sentence each; nothing where it is good enough.
    """

    side: Side
    worse: float
    misses: list[str]


def compare_with_teacher(
    recipe: Recipe,
    folder: Path,
    manifest: Manifest,
    dataset: Dataset,
    on_step: Callable[[str], None],
) -> Mapping[str, Any]:
    """Compares a student that was just packed with the bundle of its teacher, on the evaluation part.

    Args:
        recipe: The model.
        folder: Where its bundle lies.
        manifest: The manifest of that.
        dataset: The data of the model.
        on_step: Called with a line for each step.

    Returns:
        What the lineage says of it: a ``Distillation``; nothing for a version that is no student, or whose
        teacher has no bundle.
    """
    teacher = recipe.version(manifest.version).teacher
    found = None if teacher is None else find_bundle(recipe, teacher)
    if found is None:
        return {}
    on_step(f"comparing it with its teacher, {found[1].tag}")
    rows = dataset.evaluation.only(recipe.inputs)
    theirs, ours = measure(*found, rows), measure(folder, manifest, rows, is_trusted=True)
    compared = Distillation(
        machine=cpu_name(),
        rows=len(rows.targets),
        metric=manifest.task.metric,
        teacher=theirs.side,
        student=ours.side,
        agreement=interval((~manifest.task.flipped(theirs.scores, ours.scores)).astype(np.float64)),
        parted=_parted(manifest.task, theirs.scores, ours.scores),
    )
    return {"distillation": msgspec.to_builtins(compared)}


def consider(recipe: Recipe, versions: Sequence[str], budget: float, margin: float) -> list[Considered]:
    """Looks which students are fast enough and good enough, on the calibration part.

    That has no part in the training of either, and choosing on it leaves what is published of the evaluation part
    as it is.

    Args:
        recipe: The model.
        versions: Students whose bundles and those of their teachers are in the store; others are passed over.
        budget: Seconds that one row alone may take on this machine.
        margin: By how much the loss of a student may be larger than that of its teacher.

    Returns:
        They, the smallest file first.

    Raises:
        BundleError: If there is none.
    """
    rows = recipe.load().calibration.only(recipe.inputs)
    teachers: dict[str, Measured] = {}
    considered = []
    for name in versions:
        teacher = recipe.version(name).teacher
        found, taught_by = find_bundle(recipe, name), None if teacher is None else find_bundle(recipe, teacher)
        if teacher is None or found is None or taught_by is None:
            continue
        if teacher not in teachers:
            teachers[teacher] = measure(*taught_by, rows)
        side, _, losses = measure(*found, rows)
        worse = float(losses.mean() - teachers[teacher].losses.mean())
        misses = []
        if side.row_seconds > budget:
            misses.append(f"answers a row in {duration(side.row_seconds)}, not {duration(budget)}")
        if worse > margin:
            metric = recipe.version(name).task.metric
            misses.append(f"its {metric} is {worse:.4g} above that of {teacher}, and {margin:.4g} may be")
        considered.append(Considered(side, worse, misses))
    if not considered:
        raise BundleError(
            f"{recipe.name} has no student among {', '.join(versions)} that is in the store with its teacher: "
            "`Version(teacher=…)` makes one"
        )
    return sorted(considered, key=lambda each: each.side.size)


def measure(folder: Path, manifest: Manifest, rows: Labelled, *, is_trusted: bool = False) -> Measured:
    """Measures a bundle by the variant that would serve one row at a time here, the fastest.

    Raises:
        BundleError: If none can be run.
    """
    speeds = measure_speeds(folder, manifest, SECONDS, is_trusted=is_trusted)
    names = [name for name in servable(manifest) if is_trusted or may_load(manifest, name)]
    points = [point for point in speeds.points if point.variant in names and point.device == "cpu"]
    if not points:
        raise BundleError(f"{manifest.tag}: no variant that may serve can be timed here")
    alone = max((point for point in points if point.batch_size == 1), key=_speed)
    own = [point for point in points if point.variant == alone.variant]
    variant = load_variant(folder, manifest, alone.variant, is_trusted=is_trusted)
    scores = run_in_batches(variant.run, rows.inputs)
    losses = manifest.task.losses(scores, rows.targets)
    side = Side(
        version=manifest.version,
        variant=alone.variant,
        size=(folder / manifest.variants[alone.variant].file).stat().st_size,
        row_seconds=1 / alone.rows_per_second,
        rows_per_second=max(map(_speed, own)),
        loss=interval(losses),
    )
    return Measured(side, scores, losses)


def interval(values: NDArray[np.float64]) -> Figure:
    """Returns the mean of values and an interval around it.

    Of values that are 0 or 1 it is that of Clopper & Pearson (1934), of others that of Student's t.
    """
    count, mean = len(values), float(values.mean())
    if np.isin(values, (0, 1)).all():
        found = scipy.stats.binomtest(int(values.sum()), count).proportion_ci(CONFIDENCE)
        return Figure(mean=mean, low=float(found.low), high=float(found.high))
    half = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * values.std(ddof=1) / np.sqrt(count)
    return Figure(mean=mean, low=float(mean - half), high=float(mean + half))


def _parted(task: Head, theirs: Scores, ours: Scores) -> list[Parted]:
    if not task.labels_used:
        return []
    apart = np.flatnonzero(task.flipped(theirs, ours))
    named = (_labels(task, scores[apart]) for scores in (theirs, ours))
    pairs = Counter(zip(*named, strict=True))
    return [Parted(teacher=one, student=other, rows=rows) for (one, other), rows in pairs.most_common(SHOWN)]


def _labels(task: Head, scores: Scores) -> list[str]:
    answers = (task.answer(row) for row in task.numbers(scores).tolist())
    return [", ".join(task.labels_of(answer._asdict())) for answer in answers]


def _speed(point: Point) -> float:
    return point.rows_per_second
