"""A fit: a module and how it is trained, declared in place of a function that trains it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.schema import Labelled
from rollout.errors import ConfigError
from rollout.training.augmentation import Augment

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

MakeModule = Callable[[Labelled, Mapping[str, Any]], torch.nn.Module]
Loss = Callable[[Any, Any], torch.Tensor]
MakeOptimizer = Callable[[Any, float], torch.optim.Optimizer]
MakeSchedule = Callable[[torch.optim.Optimizer, int], "LRScheduler"]
MakeRows = Callable[[Labelled, np.random.Generator], Labelled]
ChooseValidation = Callable[[Labelled], NDArray[np.bool_]]
Shape = Literal["constant", "cosine", "linear"]

FIND = "find"


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A module and how Lightning trains it.

    Training goes on after a kill at the last check, to the same bits as without one. What it learns from is the
    training part without its validation rows; these choose the best checkpoint and end training early. Neither
    the calibration nor the evaluation part is seen.

    Attributes:
        module: Takes the rows that are learnt from and the hyperparameters of the version; returns the module, or
            a ``LightningModule`` whose ``training_step`` gets ``(inputs, targets)``: a tuple of the tensors that
            ``forward`` takes, and the targets. Lightning's own optimizer and schedule are then the module's.
        loss: Takes what the module returns and the targets; by default cross-entropy for classes and labels, the
            likelihood of a Laplace distribution for a value and its spread, and the absolute error for a value,
            of several targets in their standard deviations. Of several heads, one for each by name, which takes
            what the module returns for that head and its targets, of the rows of which they are known; those that
            are not named have the default. Their sum is minimised. Or one for all, which takes ``OfHeads``.
        optimizer: Takes the parameters and the learning rate, as ``torch.optim.AdamW`` does.
        epochs: Passes over the rows that are learnt from; this or ``steps``.
        steps: Steps of the optimizer, so that versions on different amounts of data are trained alike.
        batch: Rows of a step.
        learning_rate: Of the first step after the warm-up; ``"find"`` looks for it and draws what it saw.
        schedule: How the learning rate falls until the last step; or what makes a scheduler of the optimizer and
            the number of steps, which is stepped after each of them.
        warmup: Steps in which the learning rate rises to its full height.
        check_every: A virtual epoch: validation and a checkpoint every so many rows seen; by default every pass.
        patience: Checks without a better validation loss after which training ends; ``None`` never ends it early.
        clip: Largest norm of all gradients together; ``None`` clips nothing.
        validation: Share of the training part that becomes the validation rows, by a hash of their inputs, so
            that a row stays where it is when data grow; or what tells which rows they are, ``bool`` of shape
            ``(rows,)``.
        augment: Changes of the batches that are learnt from, in turn: see ``rollout.training.augmentation``, or
            functions of the inputs and a random generator.
        synthetic: Takes the rows that are learnt from and a random generator; returns rows to learn from besides.
        temperature: Of a student, what its logits and those of its teacher are divided by in the soft part of the
            loss.
        soft: Of a student, the weight of the soft part of the loss, from 0 to 1; the usual loss has the rest.
        precision: Lightning's; by default ``bf16-mixed`` on a GPU that has it, ``16-mixed`` on others, and
            ``32-true`` on a processor.

    Raises:
        ConfigError: If both or neither of ``epochs`` and ``steps`` are given, or a figure is out of range.

    Example:
        >>> fit = Fit(module=lambda part, hyperparameters: torch.nn.Linear(4, 2), epochs=3, batch=50)
        >>> fit.total_steps(rows=1000)
        60
    """

    module: MakeModule
    loss: Loss | Mapping[str, Loss] | None = None
    optimizer: MakeOptimizer = torch.optim.AdamW
    epochs: float | None = None
    steps: int | None = None
    batch: int = 128
    learning_rate: float | Literal["find"] = 1e-3
    schedule: Shape | MakeSchedule = "cosine"
    warmup: int = 0
    check_every: int | None = None
    patience: int | None = 10
    clip: float | None = 1.0
    validation: float | ChooseValidation = 0.1
    augment: Sequence[Augment] = ()
    synthetic: MakeRows | None = None
    temperature: float = 2.0
    soft: float = 0.5
    precision: str | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ConfigError("a Fit takes either epochs or steps")
        if min(self.epochs or self.steps or 0, self.batch, self.check_every or 1, self.patience or 1) <= 0:
            raise ConfigError("epochs, steps, batch, check_every and patience of a Fit are above 0")
        if not callable(self.validation) and not 0 < self.validation < 1:
            raise ConfigError("the validation share of a Fit is between 0 and 1")
        if not (self.temperature > 0 and 0 <= self.soft <= 1):
            raise ConfigError("the temperature of a Fit is above 0, and its soft part from 0 to 1")
        if isinstance(self.learning_rate, str) and self.learning_rate != FIND:
            raise ConfigError(f"the learning rate of a Fit is a number or {FIND!r}, not {self.learning_rate!r}")

    def with_hyperparameters(self, hyperparameters: Mapping[str, Any]) -> Fit:
        """Returns the fit with the hyperparameters that are settings of it, by their names, such as ``batch``."""
        own = {name: value for name, value in hyperparameters.items() if name in SETTINGS}
        return msgspec.structs.replace(self, **own)

    def total_steps(self, rows: int) -> int:
        """Returns the steps of the optimizer for so many rows to learn from."""
        return self.steps or max(1, round((self.epochs or 0) * rows / self.batch))

    def steps_between_checks(self, rows: int) -> int:
        """Returns the steps of a virtual epoch."""
        return max(1, round((self.check_every or rows) / self.batch))

    def described(self) -> dict[str, Any]:
        """Returns the settings as the lineage keeps them: callables by their name and the hash of their code."""
        return {name: _described(getattr(self, name)) for name in self.__struct_fields__}


# What a search may vary beside the hyperparameters of the module.
SETTINGS = (
    *("epochs", "steps", "batch", "learning_rate", "schedule", "warmup", "check_every", "patience", "clip"),
    *("temperature", "soft"),
)


def height(shape: Shape, warmup: int, steps: int) -> Callable[[int], float]:
    """Returns the part of the learning rate that a step has, from its number on.

    The cosine is that of Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017),
    without restarts.
    """

    def of(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[shape]

    return of


def code_hash(made_by: Callable[..., Any]) -> str | None:
    """Returns the SHA-256 of the Python files beside the one that defines something; ``None`` where none does."""
    try:
        file = Path(inspect.getsourcefile(_definition(made_by)) or "")
    except TypeError:
        return None
    if not file.is_file():
        return None
    digest = hashlib.sha256()
    for each in sorted(file.parent.glob("*.py")):
        digest.update(each.name.encode() + each.read_bytes())
    return digest.hexdigest()


def _definition(value: Callable[..., Any]) -> Any:
    """Returns the function or the class whose code is run when something is called."""
    while isinstance(value, functools.partial):
        value = value.func
    value = inspect.unwrap(value)
    return value if hasattr(value, "__qualname__") else type(value)


def _described(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {"kind": type(value).__name__, **msgspec.to_builtins(value)}
    if isinstance(value, Mapping):
        return {name: _described(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_described(each) for each in value]
    if callable(value):
        definition = _definition(value)
        code = None if definition.__module__.startswith("torch.") else code_hash(value)
        return {"kind": definition.__qualname__, "code": code}
    return value
