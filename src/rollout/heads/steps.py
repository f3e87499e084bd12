"""The last step: what is done to the columns that a module returns, the same in NumPy and in every graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Step(NamedTuple):
    """What becomes of some columns: ``then(columns * scale + shift)``.

    Attributes:
        columns: How many.
        scale: A factor for each, or one for all.
        shift: A summand for each, or one for all.
        then: ``softmax`` goes over each ``classes`` columns that follow each other.
        classes: So many columns make one distribution.
    """

    columns: int
    scale: float | Sequence[float] = 1.0
    shift: float | Sequence[float] = 0.0
    then: Literal["identity", "sigmoid", "softmax"] = "identity"
    classes: int = 1


def places(steps: Sequence[Step]) -> Iterator[tuple[Step, slice]]:
    """Yields each step with its columns."""
    start = 0
    for step in steps:
        yield step, slice(start, start + step.columns)
        start += step.columns


def apply(steps: Sequence[Step], outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Makes scores of outputs, both ``float32`` of shape ``(rows, columns)``, in double precision."""
    scores = np.empty(outputs.shape, np.float32)
    for step, own in places(steps):
        columns = outputs[:, own].astype(np.float64) * np.asarray(step.scale) + np.asarray(step.shift)
        if step.then == "sigmoid":
            columns = (1 + np.tanh(columns / 2)) / 2
        elif step.then == "softmax":
            apart = columns.reshape(len(columns), -1, step.classes)
            columns = softmax(apart).reshape(columns.shape)
        scores[:, own] = columns
    return scores


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns distributions over the last axis."""
    parts = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(parts / parts.sum(-1, keepdims=True))
