"""Trainings that outlive a kill: what was trained to its end is not trained again, what was begun goes on."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from rollout.bundle.lineage import hash_rows
from rollout.bundle.schema import Labelled
from rollout.training.build import code_and_settings, describe_training
from rollout.training.fit import Fit
from rollout.training.recipe import Recipe
from rollout.training.runs import Fitted, Run, digest
from rollout.whole_file import write_whole

TRAINED = "trained.pickle"

logger = logging.getLogger(__name__)


class KeptTrainings(Recipe, frozen=True, kw_only=True):
    """A recipe that keeps what it trains.

    A ``Fit`` goes on at its last checkpoint. What a function trains is kept once it is done; where that cannot be
    pickled, it is trained again. Other data, settings, code, libraries or another teacher are another training.

    Attributes:
        folder: Where; only its owner may write there, since what is unpickled can run code.
    """

    folder: Path

    def fit(self, name: str, part: Labelled, seed: int, run: Run | None = None) -> Fitted:
        """Trains a version, unless that was done before.

        Raises:
            ConfigError: If it is a ``Fit`` that cannot be trained.
        """
        lineage = {"data": hash_rows(part), **describe_training(self, name)}
        place = self.folder / f"{name}-{seed}-{digest(code_and_settings(self, name, lineage))}"
        if isinstance(self.version(name).train, Fit):
            return super().fit(name, part, seed, (run or Run())._replace(folder=place))
        file = place / TRAINED
        if file.is_file() and _is_own(file):
            return Fitted(pickle.loads(file.read_bytes()), [], {}, [])  # noqa: S301  from our own home
        fitted = super().fit(name, part, seed, run)
        if not isinstance(fitted.module, Path):  # of a file, only its name would be kept
            with suppress(pickle.PicklingError, AttributeError, TypeError):
                write_whole(file, pickle.dumps(fitted.module))
        return fitted


def keep_trainings(recipe: Recipe, folder: Path) -> KeptTrainings:
    """Returns a recipe that keeps what it trains in a folder."""
    return KeptTrainings(**msgspec.structs.asdict(recipe), folder=folder)


def tidy(folder: Path, name: str, seed: int) -> None:
    """Removes all trainings that were kept but those of a version with the seed that is packed."""
    for place in folder.glob("*"):
        if not place.name.startswith(f"{name}-{seed}-"):
            shutil.rmtree(place, ignore_errors=True)


def _is_own(file: Path) -> bool:
    """Whether nobody else can have put a file there; says so if somebody can."""
    for each in (file, file.parent, file.parent.parent):
        found = each.stat()
        if found.st_uid not in (0, os.getuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            logger.warning(
                "others can write %s, and what is read from it runs code: what was trained is trained again", each
            )
            return False
    return True
