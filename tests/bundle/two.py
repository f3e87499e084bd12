"""A small model, packed in a second, for the tests of packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from rollout import Classification, Labelled, Tensor, pack
from rollout.bundle.manifest import Manifest
from rollout.bundle.schema import Arrays
from rollout.bundle.variants import Onnx
from rollout.heads import Scores


class Two(nn.Module):
    """Says whether the sum of two numbers is positive; dropout and batch norm make eval mode matter."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        total = self.drop(self.norm(x.sum(1, keepdim=True)))
        return torch.cat([-total, total], 1) * 3


class Linear(nn.Module):
    """The same by a matrix product, which can be quantized."""

    def __init__(self, first: float = 1.0, second: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        weight = torch.tensor([[-first, -second], [first, second]])
        self.layer.load_state_dict({"weight": weight * 3, "bias": torch.zeros(2)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.layer(x)
        return logits


class Coarse(Onnx):
    """Rounds scores down to thirds, so that every close call is answered with the first label."""

    name = "onnx-int8"
    file = "onnx-int8/model.onnx"
    is_exact = False

    def run(self, inputs: Arrays) -> Scores:
        return np.asarray(np.floor(super().run(inputs) * 1.5) / 1.5, np.float32)


TASK = Classification(labels=["no", "yes"])


def part(rows: int, seed: int) -> Labelled:
    """Draws rows that both models answer without an error."""
    x = np.random.default_rng(seed).normal(size=(rows, 2)).astype(np.float32)
    return Labelled({"x": x}, (x.sum(1) > 0).astype(int))


def pack_two(version: str, module: nn.Module | None = None, **changes: Any) -> Manifest:
    """Packs ``two:version``."""
    arguments: dict[str, Any] = {
        "name": "two",
        "version": version,
        "inputs": {"x": Tensor(shape=(2,))},
        "task": TASK,
        "calibration": part(500, 1),
        "evaluation": part(100, 2),
    }
    if "artefact" not in changes:
        arguments["module"] = module or Two().eval()
    return pack(**(arguments | changes))
