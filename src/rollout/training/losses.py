"""What a module is trained with: the loss that its `Fit` names, or the usual one of each head."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.module import entries_for
from rollout.errors import ConfigError
from rollout.heads import Head
from rollout.heads.structured import columns_of, rows_of
from rollout.training.batches import OfHeads
from rollout.training.fit import Loss


def loss_of(given: Loss | Mapping[str, Loss] | None, task: Head, targets: NDArray[Any]) -> Loss:
    """Returns what a module is trained with.

    Args:
        given: What its ``Fit`` names.
        task: What it answers.
        targets: What it learns from.

    Raises:
        ConfigError: If a head has no loss, or a loss has no head.
    """
    if given is not None and not isinstance(given, Mapping):
        return given
    heads, named = task.each_head, given or {}
    if unknown := sorted(set(named) - set(columns_of(targets))):
        there = ", ".join(columns_of(targets)) or "no heads with names"
        raise ConfigError(f"Fit(loss=…) has one for {unknown[0]}, and there are {there} to learn")
    if not heads:
        return default_loss(task, targets)
    losses = {
        name: named.get(name) or default_loss(heads[name], rows_of(targets, name), name)
        for name in columns_of(targets)
    }

    def loss(returned: Any, batch: OfHeads) -> torch.Tensor:
        entries = entries_for(returned, heads, task.needs)
        each = []
        for name, own in losses.items():
            known, wanted = batch.known[name], batch.targets[name]
            if known.all():
                each.append(own(entries[name], wanted))
            elif known.any():
                each.append(own(_rows(entries[name], known), wanted[known]))
        return torch.stack(each).sum()

    return loss


def default_loss(task: Head, targets: NDArray[Any] | None = None, name: str = "") -> Loss:
    """Returns what a module is trained with that names no loss of its own.

    Args:
        task: What it answers.
        targets: What it learns from; several numbers a row count in their standard deviations.
        name: What the head is called, of several.

    Raises:
        ConfigError: If there is none for its kind.
    """
    if task.usual_loss == "classes":
        return _classes
    if task.usual_loss == "labels":
        return _labels
    if task.usual_loss != "values":
        where = f"Fit(loss={{{name!r}: …}})" if name else "Fit(loss=…)"
        raise ConfigError(f"there is no usual loss for {type(task).__name__}: name one in {where}")
    if targets is None or targets.ndim == 1:
        return _values
    spread = np.std(targets.astype(np.float64), axis=0)
    units = torch.from_numpy(np.where(spread > 0, spread, 1.0).astype(np.float32))
    return lambda outputs, wanted: _several_values(outputs, wanted, units.to(wanted.device))


def _rows(returned: Any, which: torch.Tensor) -> Any:
    """Takes some rows of what a module returned for a head, however it is nested."""
    if isinstance(returned, torch.Tensor):
        return returned[which]
    if isinstance(returned, Mapping):
        return {name: _rows(each, which) for name, each in returned.items()}
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        return type(returned)(*(_rows(each, which) for each in returned))
    if isinstance(returned, list | tuple):
        return [_rows(each, which) for each in returned]
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        names = [field.name for field in dataclasses.fields(returned)]
        return dataclasses.replace(returned, **{name: _rows(getattr(returned, name), which) for name in names})
    return returned


def _classes(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs.reshape(-1), targets.float())
    return torch.nn.functional.cross_entropy(outputs, targets)


def _labels(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets.float())


def _values(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        return (outputs.reshape(-1) - targets).abs().mean()
    value, spread = outputs.unbind(1)
    return ((targets - value).abs() / spread + spread.log()).mean()


def _several_values(outputs: torch.Tensor, targets: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    far = (outputs[:, : targets.shape[1]] - targets).abs() / units
    if outputs.shape[1] == targets.shape[1]:
        return far.mean()
    spread = outputs[:, targets.shape[1] :] / units
    return (far / spread + spread.log()).mean()
