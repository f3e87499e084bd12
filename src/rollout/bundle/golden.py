"""Golden examples: inputs with the scores that the source module gave, to be run again anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays
from rollout.bundle.task import Scores, Task

FILE_NAME = "golden.npz"


class Golden(NamedTuple):
    """Examples and what is expected of them.

    Attributes:
        inputs: For each field an array of shape ``(rows, *field.shape)``.
        scores: The source's scores, ``float32`` of shape ``(rows, task.outputs)``.
    """

    inputs: Arrays
    scores: Scores


def choose_golden(task: Task, inputs: Arrays, scores: Scores, rows: int = 32) -> Golden:
    """Picks examples: half of them the least sure, where a flip would show first, half spread evenly."""
    uncertain = np.argsort(task.sureness(scores), kind="stable")[: rows // 2]
    spread = np.linspace(0, len(scores) - 1, rows - len(uncertain)).astype(int)
    chosen = np.unique(np.concatenate([uncertain, spread]))
    return Golden(take(inputs, chosen), scores[chosen])


def write_golden(folder: Path, golden: Golden) -> None:
    """Writes the examples into the bundle at ``folder``."""
    inputs = {f"inputs/{name}": array for name, array in golden.inputs.items()}
    np.savez_compressed(folder / FILE_NAME, scores=golden.scores, **inputs)  # type: ignore[arg-type]


def read_golden(folder: Path) -> Golden:
    """Reads the examples of the bundle at ``folder``; never unpickles."""
    with np.load(folder / FILE_NAME, allow_pickle=False) as file:
        inputs = {name.removeprefix("inputs/"): file[name] for name in file.files if name.startswith("inputs/")}
        return Golden(inputs, file["scores"])
