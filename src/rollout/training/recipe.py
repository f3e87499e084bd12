"""A recipe: how the versions of a model are trained and packed, so that it can be done again."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.fields import Field
from rollout.bundle.reference import Reference
from rollout.bundle.schema import Arrays, Labelled
from rollout.errors import NO_JSON, ConfigError
from rollout.heads import Head
from rollout.training.fit import Fit
from rollout.training.runs import Fitted, Run

SEARCHED = "searched.json"

Train = Callable[[Labelled, int], Any]
Baseline = Callable[[Labelled, Arrays], NDArray[Any]]


class ReviewedLabels(msgspec.Struct, frozen=True, kw_only=True):
    """What exports of the review queue gave to a training part.

    Attributes:
        files: SHA-256 of each export, by its name.
        used: Rows that the training part got.
        left_out: Rows that it did not get, by why.
        corrected: Rows of the training part whose own label looked wrong, and was replaced by what people said.
    """

    files: dict[str, str]
    used: int
    left_out: dict[str, int]
    corrected: int = 0


class Dataset(NamedTuple):
    """The rows of a model, in three parts.

    Attributes:
        train: What versions learn from.
        calibration: What thresholds, temperatures and intervals are computed on.
        evaluation: What every published figure is measured on.
        source: Where the rows come from.
        split: The rule that parted them.
        labels: What reviewed labels the training part has besides.
    """

    train: Labelled
    calibration: Labelled
    evaluation: Labelled
    source: str
    split: str
    labels: ReviewedLabels | None = None


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """The best trial of a search, which is a version of its own.

    Attributes:
        of: The version that it varies.
        hyperparameters: Those of the trial, in place of that version's.
        study: The study in Optuna's storage.
        trial: The number of the trial.
        trials: Finished trials that it is the best of.
        validation_loss: Its loss on the validation rows, which are no part of the evaluation.
    """

    of: str
    hyperparameters: dict[str, Any]
    study: str
    trial: int
    trials: int
    validation_loss: float


MakeReference = Callable[[Any, Dataset], Reference]


class Version(NamedTuple):
    """One version of a model.

    Attributes:
        train: Takes the training part and a seed; returns the module in eval mode, a fitted estimator, or another
            artefact that ``pack`` takes, such as the path of a file that was trained elsewhere. Or a ``Fit``: a
            module and how it is trained.
        task: What it answers, and what counts as unsure.
        hyperparameters: What the lineage records of it.
        flip_rate: Largest share of evaluation rows that a quantized variant may answer differently.
        variants: Those that are packed; see ``pack``.
        needs_labels: Whether it learns from reviewed labels too, which ``rollout build --labels`` adds to the
            training part.
        reference: Takes what ``train`` returned and the data; returns raw inputs and the author's own way from
            there to an answer, which the bundle is compared with.
        search: Takes a trial of Optuna and returns the hyperparameters that it suggests, as ``{"hidden":
            trial.suggest_int("hidden", 16, 256)}``; ``rollout search`` tries them.
        searched: The search that it comes from.
        teacher: The version whose student it is: a ``Fit`` is trained on the soft scores of that version besides,
            as its bundle in the store gives them, or, where there is none, the recipe.
        again: The version of the recipe that it is, trained again on more labels by ``rollout improve``.
    """

    train: Train | Fit
    task: Head
    hyperparameters: Mapping[str, Any]
    flip_rate: float = 0.002
    variants: Collection[str] | None = None
    needs_labels: bool = False
    reference: MakeReference | None = None
    search: Callable[[Any], Mapping[str, Any]] | None = None
    searched: Searched | None = None
    teacher: str | None = None
    again: str | None = None


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A model: its inputs, its data and its versions.

    Attributes:
        name: The model.
        inputs: The input schema, in the order of ``forward``'s arguments.
        load: Loads the data; the same rows each time.
        versions: The versions by name, oldest first.
        baselines: What any version must beat: each takes the training part and the inputs of other rows, and
            returns the index of a class, or a value, for each row.
        seed: Seed of the version that is packed.
    """

    name: str
    inputs: Mapping[str, Field]
    load: Callable[[], Dataset]
    versions: Mapping[str, Version]
    baselines: Mapping[str, Baseline] = {}
    seed: int = 0

    def version(self, name: str) -> Version:
        """Returns a version.

        Raises:
            ConfigError: If there is none of this name.
        """
        try:
            return self.versions[name]
        except KeyError:
            raise ConfigError(f"{self.name} has no version {name}; it has {', '.join(self.versions)}") from None

    def train(self, name: str, part: Labelled, seed: int) -> Any:
        """Trains a version, to the same weights on every run and whatever the number of cores."""
        return self.fit(name, part, seed).module

    def fit(self, name: str, part: Labelled, seed: int, run: Run | None = None) -> Fitted:
        """Trains a version; with a ``Fit``, looking at it where ``run`` says so.

        Raises:
            ConfigError: If it is a ``Fit`` that cannot be trained, or a student that cannot be taught.
        """
        version, run, teacher = self.version(name), run or Run(), None
        if version.teacher is not None:
            from rollout.training.distilling import find_teacher  # noqa: PLC0415  not every version has one

            teacher = find_teacher(self, name, part, seed, run.on_step)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(mode=True)
        torch.set_num_threads(1)  # the sum of many numbers depends on how threads share them
        if not isinstance(version.train, Fit):
            return Fitted(version.train(part, seed), [], {}, [])
        try:
            from rollout.training.fitting import fit_module  # noqa: PLC0415  not every version needs Lightning
        except ModuleNotFoundError as error:
            raise ConfigError(f"a Fit needs {error.name}: pip install 'rollout[train]'") from None
        settings = version.train, version.task, self.inputs, part, version.hyperparameters
        return fit_module(*settings, seed, run, teacher)


def load_recipe(folder: Path) -> Recipe:
    """Imports ``RECIPE`` from the ``recipe.py`` of a model's folder, such as ``models/digits``.

    Raises:
        ConfigError: If there is none.
    """
    if not (folder / "recipe.py").is_file():
        raise ConfigError(f"{folder} has no recipe.py; `rollout init NAME` writes one to start from")
    folder = folder.resolve()
    root = str(folder.parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    recipe = getattr(importlib.import_module(f"{folder.parent.name}.{folder.name}.recipe"), "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"{folder / 'recipe.py'} has no RECIPE of type rollout.Recipe")
    return with_searched(recipe, folder / SEARCHED)


def with_searched(recipe: Recipe, file: Path) -> Recipe:
    """Adds the versions that searches found, as ``rollout search`` wrote them beside the recipe."""
    if not file.is_file():
        return recipe
    try:
        found = msgspec.json.decode(file.read_bytes(), type=dict[str, Searched])
    except NO_JSON as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    versions = {
        name: recipe.version(searched.of)._replace(
            hyperparameters=searched.hyperparameters, search=None, searched=searched
        )
        for name, searched in found.items()
    }
    return msgspec.structs.replace(recipe, versions={**recipe.versions, **versions})
