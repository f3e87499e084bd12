"""Building: from a recipe to a bundle in the store."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rollout.bundle.effort import Packing
from rollout.bundle.lineage import hash_rows
from rollout.bundle.manifest import Manifest
from rollout.bundle.pack import pack
from rollout.training.checks import check_data
from rollout.training.distilling import describe_teacher, judge_teacher
from rollout.training.fit import Fit, code_hash
from rollout.training.labels import add_labels
from rollout.training.recipe import Dataset, Recipe
from rollout.training.runs import Progress, Run, run_folder
from rollout.training.students import compare_with_teacher
from rollout.training.tracking import LINEAGE, Tracking, describe_run, make_trackers


def build_version(
    recipe: Recipe,
    name: str,
    on_step: Callable[[str], None],
    labels: Mapping[str, Path] = {},
    *,
    home: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_packing: Callable[[Packing], None] = lambda _: None,
) -> Manifest:
    """Checks the data, trains a version, and packs it.

    Args:
        recipe: The model's recipe.
        name: The version.
        on_step: Called with a line for each step.
        labels: Exports of the review queue by name, for a version that learns from them.
        home: ``ROLLOUT_HOME``, where the checkpoints and curves of a ``Fit`` are kept, for a build that was
            interrupted to go on; ``None`` keeps none.
        on_progress: Called now and then while a ``Fit`` is trained.
        on_packing: Called now and then while it is packed.

    Raises:
        ConfigError: If it learns from reviewed labels and they cannot be used.
        BundleError: If it cannot be packed.
    """
    on_step("looking at the data")
    version, dataset = recipe.version(name), add_labels(recipe.load(), recipe, name, labels)
    findings = check_data(dataset, recipe.inputs, version.task)
    on_step(f"training on {len(dataset.train.targets):,} rows")
    lineage = describe_version(recipe, name, dataset)
    findings += judge_teacher(recipe, name, lineage)
    folder = None if home is None else training_folder(recipe, name, home, lineage)
    with Tracking(make_trackers(folder)) as tracking:
        tracking.start(describe_run(recipe.name, name, lineage, folder))
        for place, entry in tracking.lineage.items():
            on_step(f"its run in {place} is {entry.get('url', entry['run'])}")
        run = Run(
            folder=folder,
            on_step=on_step,
            on_progress=on_progress,
            on_check=tracking.check,
            checks=True,
            baselines=recipe.baselines,
        )
        fitted = recipe.fit(name, dataset.train, recipe.seed, run)
        for finding in fitted.findings:
            on_step(finding.detail)
        tracking.trained(fitted.checks, fitted.figures, folder)
        manifest = pack(
            artefact=fitted.module,
            name=recipe.name,
            version=name,
            inputs=recipe.inputs,
            task=version.task,
            calibration=dataset.calibration,
            evaluation=dataset.evaluation,
            reference=version.reference and version.reference(fitted.module, dataset),
            lineage={
                **lineage,
                **({"fit": fitted.figures} if fitted.figures else {}),
                **({LINEAGE: tracking.lineage} if tracking.lineage else {}),
            },
            findings=[*findings, *fitted.findings],
            flip_rate=version.flip_rate,
            variants=version.variants,
            lineage_of=lambda packed, manifest: compare_with_teacher(recipe, packed, manifest, dataset, on_step),
            on_step=on_step,
            on_progress=on_packing,
        )
        tracking.packed(manifest)
    return manifest


def training_folder(recipe: Recipe, name: str, home: Path, lineage: Mapping[str, Any]) -> Path:
    """Returns where a training keeps what it needs to go on: another place for other data, settings or code."""
    return run_folder(home.resolve(), recipe.name, name, settings=code_and_settings(recipe, name, lineage))


class Settings(NamedTuple):
    """What decides on the weights of a version, but for the machine.

    Attributes:
        lineage: Its seeds, data and hyperparameters.
        code: The hash of the code that it is made by; ``None`` where that is not known.
        packages: Versions of what computes.
    """

    lineage: Mapping[str, Any]
    code: str | None
    packages: list[str]


def code_and_settings(recipe: Recipe, name: str, lineage: Mapping[str, Any]) -> Settings:
    """Returns what decides on the weights of a version, but for the machine."""
    made_by = recipe.version(name).train
    code = code_hash(made_by.module if isinstance(made_by, Fit) else made_by)
    return Settings(lineage, code, [importlib.metadata.version(package) for package in ("torch", "numpy")])


def describe_version(recipe: Recipe, name: str, dataset: Dataset) -> dict[str, Any]:
    """Returns the seeds, data and hyperparameters of a version, as its manifest keeps them."""
    described: dict[str, Any] = {
        "seeds": {"random": recipe.seed, "numpy": recipe.seed, "torch": recipe.seed},
        "data": {
            "source": dataset.source,
            "split": dataset.split,
            "rows": [len(part.targets) for part in dataset[:3]],
            "sha256": hash_rows(*dataset[:3]),
        },
        **describe_training(recipe, name),
    }
    if (searched := recipe.version(name).searched) is not None:
        described["search"] = searched
    if (again := recipe.version(name).again) is not None:
        described["again"] = again
    if dataset.labels is not None:
        described["data"]["labels"] = dataset.labels
    return msgspec.json.decode(msgspec.json.encode(described), type=dict[str, Any])


def describe_training(recipe: Recipe, name: str) -> dict[str, Any]:
    """Returns how a version is trained: hyperparameters, settings of its ``Fit``, and its teacher.

    Raises:
        ConfigError: If it cannot be a student of its teacher.
    """
    version = recipe.version(name)
    described: dict[str, Any] = {"hyperparameters": dict(version.hyperparameters)}
    if isinstance(version.train, Fit):
        described["training"] = version.train.with_hyperparameters(described["hyperparameters"]).described()
    if version.teacher is not None:
        described["teacher"] = describe_teacher(recipe, name)
    return described
