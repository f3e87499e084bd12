"""What the evaluation part was like, as a file of the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle.fields import Field
from rollout.bundle.manifest import read_whole
from rollout.bundle.schema import Arrays
from rollout.errors import NO_JSON, BundleError
from rollout.heads.head import Head, Numbers
from rollout.judge.baseline import Baseline
from rollout.judge.features import Features, named

FILE_NAME = "baseline.json"
ANSWER = "answer"


def features_of(fields: Mapping[str, Field], task: Head, arrays: Arrays, numbers: Numbers) -> Features:
    """Returns the features of some rows: those of each input by its name, and of the answers.

    Args:
        fields: The input schema.
        task: What the model answers.
        arrays: The inputs, for each field a column.
        numbers: The answers, shape ``(rows, task.columns)``, in the layout of ``task``; NaN where there are none.
    """
    return features_of_inputs(fields, arrays) | named(ANSWER, task.features(numbers))


def features_of_inputs(fields: Mapping[str, Field], arrays: Arrays) -> Features:
    """Returns the features of some rows that their inputs have, those of each input by its name.

    Args:
        fields: The input schema.
        arrays: The inputs, for each field a column.
    """
    found: Features = {}
    for name, field in fields.items():
        found |= named(name, field.features(arrays[name]))
    return found


def measure_baseline(
    fields: Mapping[str, Field], task: Head, arrays: Arrays, numbers: Numbers, losses: NDArray[np.float64] | None
) -> Baseline:
    """Sums up the evaluation part.

    Args:
        fields: The input schema.
        task: What the model answers.
        arrays: The inputs.
        numbers: The answers; see ``features_of``.
        losses: How wrong each answer is, from 0 to 1; ``None`` where none is right or wrong.
    """
    right = None if losses is None else 1 - losses
    return Baseline.of(features_of(fields, task, arrays, numbers), right)


def write_baseline(folder: Path, baseline: Baseline) -> None:
    """Writes a baseline into the bundle at ``folder``."""
    (folder / FILE_NAME).write_bytes(msgspec.json.encode(baseline))


def read_baseline(folder: Path) -> Baseline | None:
    """Reads the baseline of the bundle at ``folder``; ``None`` of one that was packed before there were any.

    Raises:
        BundleError: If it is none.
    """
    try:
        return msgspec.json.decode(read_whole(folder / FILE_NAME), type=Baseline)
    except FileNotFoundError:
        return None
    except NO_JSON as error:
        raise BundleError(f"{FILE_NAME} is no baseline: {error}; pack the version again") from None
