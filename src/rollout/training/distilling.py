"""Distillation: a student learns from what its teacher makes of the training part, besides the targets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rollout.bundle.evidence import Finding
from rollout.bundle.lineage import part_of
from rollout.bundle.manifest import Manifest, digest
from rollout.bundle.module import as_table, tensors_of
from rollout.bundle.parity import Run, count, run_in_batches, take
from rollout.bundle.schema import Arrays, Labelled
from rollout.errors import ConfigError
from rollout.heads import Head
from rollout.training.batches import Taught
from rollout.training.fit import Fit, Loss

if TYPE_CHECKING:
    from rollout.training.recipe import Recipe

StudentLoss = Callable[[Any, Taught], torch.Tensor]

SOFT = "teacher.npy"
AT_ONCE = 4096  # rows whose scores are in memory at a time


class Teacher(NamedTuple):
    """A version that teaches.

    Attributes:
        name: The version.
        task: What it answers, calibrated where it is a bundle.
        run: Scores a batch.
    """

    name: str
    task: Head
    run: Run


def find_teacher(
    recipe: Recipe, name: str, part: Labelled, seed: int, on_step: Callable[[str], None] = lambda _: None
) -> Teacher | None:
    """Returns the teacher of a version: its bundle, or, where the store has none, it as the recipe trains it.

    Raises:
        ConfigError: If the version cannot be a student, or not of this teacher.
    """
    version = recipe.version(name)
    if version.teacher is None:
        return None
    check_student(recipe, name)
    found = find_bundle(recipe, version.teacher)
    if found is not None:
        from rollout.bundle.verify import load_variant  # noqa: PLC0415  it imports BentoML

        folder, manifest = found
        _require_alike(f"{recipe.name}:{name}", version.task, manifest.tag, manifest.task)
        variant = exact_variant(manifest)
        on_step(f"{manifest.tag} teaches, by its {variant} variant")
        return Teacher(version.teacher, manifest.task, load_variant(folder, manifest, variant).run)
    from rollout.bundle.artefact import open_source  # noqa: PLC0415

    on_step(
        f"the store has no {recipe.name}:{version.teacher}: training it, to teach; if it is built before its "
        "student, the two are compared as well"
    )
    task = recipe.version(version.teacher).task
    source = open_source(
        recipe.train(version.teacher, part, seed), task, recipe.inputs, {"evaluation": part}, flip_rate=1.0
    )
    return Teacher(version.teacher, task, source.run)


def check_student(recipe: Recipe, name: str) -> None:
    """Refuses a version that cannot be the student of its teacher.

    Raises:
        ConfigError: If it cannot.
    """
    version, tag = recipe.version(name), f"{recipe.name}:{name}"
    teacher = recipe.version(version.teacher or name)
    if not isinstance(version.train, Fit):
        raise ConfigError(f"{tag} has a teacher, and a function that trains it: only a Fit can be a student")
    if not version.task.soft_loss:
        raise ConfigError(f"{tag} has a teacher: {type(version.task).__name__} cannot be taught by soft scores")
    _require_alike(tag, version.task, f"{recipe.name}:{version.teacher}", teacher.task)
    seen, each = [name], version
    while each.teacher is not None:
        if each.teacher in seen:
            raise ConfigError(f"{' is taught by '.join([*seen, each.teacher])}: nobody teaches the first")
        seen.append(each.teacher)
        each = recipe.version(each.teacher)


def describe_teacher(recipe: Recipe, name: str) -> dict[str, Any]:
    """Returns what the lineage of a student says of its teacher: the digest of its bundle, or how it is trained.

    Raises:
        ConfigError: If the version cannot be its student.
    """
    check_student(recipe, name)
    teacher = recipe.version(name).teacher or name
    found = find_bundle(recipe, teacher)
    if found is not None:
        return {"version": teacher, "bundle": digest(found[1]), "variant": exact_variant(found[1])}
    return {"version": teacher, "hyperparameters": dict(recipe.version(teacher).hyperparameters)}


def judge_teacher(recipe: Recipe, name: str, lineage: Mapping[str, Any]) -> list[Finding]:
    """Finds a teacher that was built from other data, of which rows may be evaluation rows now.

    Args:
        recipe: The model.
        name: The student.
        lineage: What the lineage of the student says.
    """
    teacher = recipe.version(name).teacher
    found = None if teacher is None else find_bundle(recipe, teacher)
    if found is None or part_of(found[1].lineage, "data").get("sha256") == lineage["data"]["sha256"]:
        return []
    return [
        Finding(
            check="data of the teacher",
            where="training",
            detail=f"{found[1].tag} was built from other data than its student: where it learnt from rows that "
            "are evaluation rows now, figures of the student are too good.",
        )
    ]


def exact_variant(manifest: Manifest) -> str:
    """Returns the variant that gives the scores of the module itself.

    Raises:
        ConfigError: If none does.
    """
    from rollout.bundle.verify import may_load, servable  # noqa: PLC0415  it imports BentoML

    names = [name for name in (*servable(manifest), *manifest.variants) if manifest.variants[name].is_exact]
    if not names:
        raise ConfigError(f"{manifest.tag} cannot teach: none of its variants has the scores of its module")
    return next((name for name in names if may_load(manifest, name)), names[0])


def taught_by(
    teacher: Teacher, inputs: Arrays, folder: Path, on_step: Callable[[str], None]
) -> NDArray[np.float32]:
    """Returns what a teacher says of rows, which is computed once and lies in the folder of the training.

    Args:
        teacher: The teacher.
        inputs: The rows that are learnt from, without changes.
        folder: Another one for other rows or another teacher.
        on_step: Called if it has to be computed.

    Raises:
        ConfigError: If it is not finite.
    """
    file, rows = folder / SOFT, count(inputs)
    if not file.is_file():
        on_step(f"asking {teacher.name} about {rows:,} rows")
        beside = file.with_name(f".{os.getpid()}.{SOFT}")
        kept: np.memmap[Any, np.dtype[np.float32]] | None = None
        for start in range(0, rows, AT_ONCE):
            some = take(inputs, slice(start, start + AT_ONCE))
            found = teacher.task.soft_targets(run_in_batches(teacher.run, some))
            if not np.isfinite(found).all():
                raise ConfigError(f"{teacher.name} cannot teach: it gives no finite number for some rows")
            if kept is None:
                kept = np.lib.format.open_memmap(beside, "w+", np.float32, (rows, found.shape[1]))
            kept[start : start + len(found)] = found
        assert kept is not None  # noqa: S101  there are rows to learn from
        kept.flush()
        beside.replace(file)
    soft: NDArray[np.float32] = np.load(file, mmap_mode="r")
    return soft


def student_loss(usual: Loss, task: Head, temperature: float, weight: float) -> StudentLoss:
    """Returns the loss of a student: that of its targets, and how far it is from what its teacher says.

    The latter is, for classes, ``temperature**2`` times the Kullback-Leibler divergence of the softmax of the
    logits divided by the temperature, so that gradients keep their size (Hinton, Vinyals & Dean, "Distilling the
    Knowledge in a Neural Network", 2015); for labels of which several hold, that of each sigmoid; for numbers,
    the absolute error.

    Args:
        usual: The loss of the targets.
        task: What both answer.
        temperature: What logits are divided by.
        weight: That of the latter; the former has the rest.

    Returns:
        The loss of what a module returns and of ``Taught`` targets.
    """
    apart = {"softmax": _softmax_apart, "sigmoid": _sigmoid_apart, "values": _values_apart}[task.soft_loss]

    def loss(outputs: Any, taught: Taught) -> torch.Tensor:
        own = as_table(tensors_of(outputs, task), task.parts)[:, : taught.soft.shape[1]]
        soft = apart(own, taught.soft, temperature)
        return weight * soft + (1 - weight) * usual(outputs, taught.targets)

    return loss


def _softmax_apart(own: torch.Tensor, soft: torch.Tensor, temperature: float) -> torch.Tensor:
    ours = functional.log_softmax(own / temperature, dim=1)
    theirs = functional.log_softmax(soft / temperature, dim=1)
    return temperature**2 * functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _sigmoid_apart(own: torch.Tensor, soft: torch.Tensor, temperature: float) -> torch.Tensor:
    theirs = torch.sigmoid(soft / temperature)
    cross = functional.binary_cross_entropy_with_logits(own / temperature, theirs)
    return temperature**2 * (cross - functional.binary_cross_entropy_with_logits(soft / temperature, theirs))


def _values_apart(own: torch.Tensor, soft: torch.Tensor, _temperature: float) -> torch.Tensor:
    return (own - soft).abs().mean()


def find_bundle(recipe: Recipe, version: str) -> tuple[Path, Manifest] | None:
    """Returns the folder and the manifest of a version, if the store has its bundle."""
    from rollout.bundle.store import bundle_exists, open_bundle  # noqa: PLC0415  the store imports BentoML

    tag = f"{recipe.name}:{version}"
    return open_bundle(tag) if bundle_exists(tag) else None


def _require_alike(student: str, ours: Head, teacher: str, theirs: Head) -> None:
    if type(ours) is not type(theirs) or ours.outputs != theirs.outputs or ours.labels_used != theirs.labels_used:
        raise ConfigError(
            f"{student} cannot learn from {teacher}: it answers with something else, or with other labels or "
            "another order of them"
        )
