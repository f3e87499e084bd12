"""The losses of trainings that a gate made, kept so that one that was interrupted goes on."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.__about__ import __version__
from rollout.training.build import code_and_settings, describe_version
from rollout.training.recipe import Dataset, Recipe
from rollout.training.runs import run_folder
from rollout.whole_file import write_whole

GATES = "gates"


class KeptLosses:
    """The losses of a version on each evaluation row, by seed.

    They are kept under the code, the settings and the data that decide on them; where the code of a version is
    not known, none are.

    Args:
        recipe: The model.
        name: The version.
        dataset: Its data, with the reviewed labels that it learns from.
        home: ``ROLLOUT_HOME``; ``None`` keeps none.
    """

    def __init__(self, recipe: Recipe, name: str, dataset: Dataset, home: Path | None) -> None:
        self._rows = len(dataset.evaluation.targets)
        settings = code_and_settings(recipe, name, describe_version(recipe, name, dataset))
        self._folder: Path | None = None
        if home is not None and settings.code is not None:
            version = recipe.version(name)
            of_answers = [
                msgspec.to_builtins(version.task),
                msgspec.to_builtins(dict(recipe.inputs)),
                __version__,
            ]
            self._folder = run_folder(home.resolve(), recipe.name, name, GATES, settings=[settings, of_answers])

    def read(self, seed: int) -> NDArray[np.float64] | None:
        """Returns the losses with a seed, shape ``(rows,)``; ``None`` where there are none."""
        if self._folder is None:
            return None
        try:
            losses: NDArray[np.float64] = np.load(self._file(seed), allow_pickle=False)
        except (OSError, ValueError, EOFError):  # a file that is not whole is none
            return None
        return losses if losses.shape == (self._rows,) else None

    def write(self, seed: int, losses: NDArray[np.float64]) -> None:
        """Keeps the losses with a seed."""
        if self._folder is None:
            return
        data = io.BytesIO()
        np.save(data, losses)
        write_whole(self._file(seed), data.getvalue())

    def _file(self, seed: int) -> Path:
        assert self._folder is not None  # noqa: S101
        return self._folder / f"{seed}.npy"
