"""What a module makes of rows while it is trained, by the loss and as versions are compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.module import as_table, tensors_of
from rollout.bundle.schema import Labelled
from rollout.heads import Head, Scores
from rollout.training.batches import Batch, OfHeads, take, tensors
from rollout.training.fit import Loss

ROWS_AT_ONCE = 256


class Measured(NamedTuple):
    """What a module makes of rows, in eval mode.

    Attributes:
        loss: Mean loss.
        errors: The loss of each row that versions are compared by, shape ``(rows,)``.
        scores: The scores of each row.
    """

    loss: float
    errors: NDArray[np.float64]
    scores: Scores


def measure(module: torch.nn.Module, part: Labelled, loss: Loss, task: Head) -> Measured:
    """Measures what a module makes of rows; in eval mode, after which each layer has the mode that it had."""
    losses: list[float] = []
    scores: list[Scores] = []
    with evaluating(module):
        for start in range(0, len(part.targets), ROWS_AT_ONCE):
            rows = take(part, slice(start, start + ROWS_AT_ONCE))
            batch = on_device(tensors(rows), module)
            returned = module(*batch.inputs)
            losses.append(float(loss(returned, batch.targets)) * len(rows.targets))
            scores.append(task.scores(answers(returned, task)))
    all_scores = np.concatenate(scores)
    errors = task.losses(all_scores, part.targets)
    return Measured(sum(losses) / len(part.targets), errors, all_scores)


def answers(returned: Any, task: Head) -> NDArray[np.float32]:
    """Returns the outputs of a module as a head makes scores of them."""
    tensors = tensors_of(returned, task)
    outputs: NDArray[np.float32] = as_table(tensors, task.parts).cpu().numpy()
    return outputs


def on_device(batch: Batch, module: torch.nn.Module) -> Batch:
    """Moves a batch to where the weights of a module are."""
    weight = next((each for each in module.parameters()), torch.zeros(()))
    inputs = tuple(each.to(weight.device) for each in batch.inputs)
    if isinstance(batch.targets, OfHeads):
        moved = ({name: each.to(weight.device) for name, each in part.items()} for part in batch.targets)
        return Batch(inputs, OfHeads(*moved))
    return Batch(inputs, batch.targets.to(weight.device))


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Puts a module in eval mode without gradients, and each of its layers back into its own mode."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, training in modes:
            layer.training = training
