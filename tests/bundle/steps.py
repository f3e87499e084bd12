"""Small models of rows of any length, packed in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from rollout import Classification, Labelled, Tensor, pack
from rollout.bundle.manifest import Manifest

LONGEST = 64
FIELD = Tensor(shape=("steps", 3), longest=LONGEST)


class Masked(nn.Module):
    """Convolves over the steps and says whether the mean of their first numbers is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(3, 8, 3, padding=1)
        self.head = nn.Linear(9, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.head.weight.data[:, 8] = torch.tensor([-5.0, 5.0])
        self.head.weight.data[0, :8] = 0.01

    def forward(self, steps: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        is_there = torch.arange(steps.shape[1], device=steps.device).unsqueeze(0) < lengths.unsqueeze(1)
        mixed = torch.relu(self.mix(steps.transpose(1, 2))) * is_there.unsqueeze(1)
        means = torch.cat([mixed.sum(2), steps[:, :, :1].sum(1)], 1) / lengths.unsqueeze(1)
        logits: torch.Tensor = self.head(means)
        return logits


class Recurrent(nn.Module):
    """A GRU, read after the last step of each row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.memory = nn.GRU(3, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, steps: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        states, _ = self.memory(steps)
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        logits: torch.Tensor = self.head(states.gather(1, last).squeeze(1)) * 5
        return logits


class Unmasked(nn.Module):
    """Takes the mean over the padding, too."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, steps: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.head(steps.mean(1)) * 9
        return logits


def part(rows: int, seed: int) -> Labelled:
    """Draws rows of 1 to ``LONGEST`` steps, most of them short."""
    generator = np.random.default_rng(seed)
    sizes = np.exp(generator.uniform(0, np.log(LONGEST), rows)).round().astype(int)
    steps = [generator.normal(generator.choice([-1, 1]), 1, (size, 3)).round(3).tolist() for size in sizes]
    targets = [int(np.mean([step[0] for step in row]) > 0) for row in steps]
    return Labelled({"steps": FIELD.encode(steps)}, np.array(targets))


def pack_steps(version: str, module: nn.Module | None = None, **changes: Any) -> Manifest:
    """Packs ``steps:version``."""
    arguments: dict[str, Any] = {
        "name": "steps",
        "version": version,
        "inputs": {"steps": FIELD},
        "task": Classification(labels=["no", "yes"]),
        "calibration": part(300, 1),
        "evaluation": part(100, 2),
    }
    return pack(module or Masked().eval(), **(arguments | changes))
