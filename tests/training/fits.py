"""Small fits that train in a second or two, and a training that a test can kill."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rollout import Classification, Dataset, Fit, Labelled, Recipe, Tensor, Version
from rollout.training.runs import Run

YES_OR_NO = Classification(labels=["no", "yes"], risk=0.2)
FIELDS = {"x": Tensor(shape=(4,))}


def rows(count: int, seed: int, *, noise: float = 0.0) -> Labelled:
    """Rows that are "yes" inside a ring, which no straight line parts."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    targets = ((x[:, :2] ** 2).sum(1) > 1.4).astype(int)
    flipped = rng.random(count) < noise
    return Labelled({"x": x}, np.where(flipped, 1 - targets, targets))


def load() -> Dataset:
    return Dataset(rows(2000, 1), rows(500, 2), rows(400, 3), "drawn", "by seed")


class Net(nn.Module):
    """Dropout and batch norm make the mode matter, and random numbers the order."""

    def __init__(self, hidden: int = 32, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.layers(x)
        return logits


def make_net(part: Labelled, hyperparameters: Mapping[str, Any]) -> nn.Module:
    return Net(hyperparameters.get("hidden", 32))


def recipe(fit: Fit, **version: Any) -> Recipe:
    """A recipe with one version."""
    options = {"hyperparameters": {"hidden": 32}, **version}
    return Recipe(name="ring", inputs=FIELDS, load=load, versions={"v1": Version(fit, YES_OR_NO, **options)})


QUICK = Fit(module=make_net, epochs=12, batch=50, learning_rate=1e-2, check_every=500)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def train_slowly(folder: Path) -> None:
    """Trains in a folder, so slowly that there is time to kill it."""
    recipe(QUICK).fit("v1", load().train, 0, Run(folder=folder, on_check=lambda *_: time.sleep(0.1)))
