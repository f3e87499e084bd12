"""The rows that a module learns from, in batches: which they are follows from the seed and the step alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.columns import arguments
from rollout.bundle.fields import Field
from rollout.bundle.schema import Labelled
from rollout.errors import ConfigError
from rollout.heads.structured import columns_of, known
from rollout.training.augmentation import Augment
from rollout.training.checks import row_keys

ORDER, CHANGE, SEEDS, SYNTHETIC = range(4)  # streams of random numbers that have nothing to do with each other


class Batch(NamedTuple):
    """Rows as a module takes them.

    Attributes:
        inputs: The tensors that ``forward`` takes, in their order.
        targets: ``int64`` or ``float32`` of shape ``(rows, …)``; of several heads, ``OfHeads``; of a student,
            ``Taught``.
    """

    inputs: tuple[torch.Tensor, ...]
    targets: Any


class OfHeads(NamedTuple):
    """Targets of several heads.

    Attributes:
        targets: Those of each head by its name; 0 where they are not known.
        known: Of which rows they are, ``bool`` of shape ``(rows,)``.
    """

    targets: dict[str, torch.Tensor]
    known: dict[str, torch.Tensor]


class Taught(NamedTuple):
    """Targets of a student.

    Attributes:
        targets: Those of the rows, as of any batch.
        soft: What its teacher says of them, ``float32`` of shape ``(rows, columns)``; see ``Head.soft_targets``.
    """

    targets: Any
    soft: torch.Tensor


class Batches:
    """The batches of one virtual epoch after the other.

    The passes over the rows follow each other without a gap, each in an order of its own, and the batch of a step
    is cut out where the step says. So training that goes on at a step sees what it would have seen.

    Args:
        part: The rows.
        size: Rows of a batch.
        steps: Steps of a virtual epoch.
        seed: Decides on the order.
        change: Changes the inputs of a batch, with random numbers that follow from the step.
        soft: For a student, what its teacher says of each row; it is not asked again about changed inputs.
    """

    def __init__(
        self,
        part: Labelled,
        size: int,
        steps: int,
        seed: int,
        change: Augment | None = None,
        soft: NDArray[np.float32] | None = None,
    ) -> None:
        self.epoch, self._soft = 0, soft
        self._part, self._size, self._steps, self._seed, self._change = part, size, steps, seed, change
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.epoch * self._steps, (self.epoch + 1) * self._steps):
            rows = self.rows(step)
            part = take(self._part, rows)
            if self._change is not None:
                part = Labelled(self._change(part.inputs, self._random(CHANGE, step)), part.targets)
            batch = tensors(part)
            if self._soft is not None:
                batch = batch._replace(targets=Taught(batch.targets, torch.from_numpy(self._soft[rows])))
            yield batch

    def rows(self, step: int) -> NDArray[np.int64]:
        """Returns which rows the batch of a step has, shape ``(size,)``."""
        count = len(self._part.targets)
        pieces, start, end = [], step * self._size, (step + 1) * self._size
        while start < end:
            number, first = divmod(start, count)
            pieces.append(self._order(number)[first : first + end - start])
            start += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _order(self, number: int) -> NDArray[np.int64]:
        if number not in self._orders:
            self._orders = {each: order for each, order in self._orders.items() if each == number - 1}
            self._orders[number] = self._random(ORDER, number).permutation(len(self._part.targets))
        return self._orders[number]

    def _random(self, stream: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, stream, number])


def tensors(part: Labelled) -> Batch:
    """Returns rows as tensors; a ragged column is padded and followed by its lengths."""
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(each)) for each in arguments(part.inputs).values())
    if not (heads := columns_of(part.targets)):
        return Batch(inputs, _targets(part.targets))
    known_of = {name: torch.from_numpy(known(part.targets, name).copy()) for name in heads}
    return Batch(inputs, OfHeads({name: _targets(part.targets[name]) for name in heads}, known_of))


def _targets(targets: NDArray[Any]) -> torch.Tensor:
    whole = np.issubdtype(targets.dtype, np.integer)
    return torch.from_numpy(targets.astype(np.int64 if whole else np.float32))


def take(part: Labelled, rows: Any) -> Labelled:
    """Returns some rows: by their numbers, or by a mask."""
    return Labelled({name: column[rows] for name, column in part.inputs.items()}, part.targets[rows])


def set_aside(
    part: Labelled, inputs: Mapping[str, Field], validation: float | Callable[[Labelled], NDArray[np.bool_]]
) -> tuple[Labelled, Labelled]:
    """Parts the training part in the rows that are learnt from and those of validation.

    Rows of the same inputs are on the same side, wherever they stand.

    Raises:
        ConfigError: If one of the two has no row.
    """
    if callable(validation):
        chosen = np.asarray(validation(part), bool)
        if chosen.shape != part.targets.shape[:1]:
            raise ConfigError(f"Fit(validation=…) tells for {chosen.shape} of {part.targets.shape[:1]} rows")
    else:
        points = [int.from_bytes(key[:8]) / 2**64 for key in row_keys(part.inputs, inputs)]
        chosen = np.array(points) < validation
    if chosen.all() or not chosen.any():
        raise ConfigError(
            f"{chosen.sum()} of {len(chosen)} training rows are validation rows: Fit(validation=…) has to leave "
            "rows on both sides"
        )
    return take(part, ~chosen), take(part, chosen)


def seed_all(seed: int, number: int) -> None:
    """Seeds every source of random numbers, from a seed and a number alone."""
    state = int(np.random.SeedSequence([seed, SEEDS, number]).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)
    torch.manual_seed(state)
