"""Version 1: a word looks at the one before it and the one behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.addresses.tagger import Tagger, fit
from rollout.bundle.schema import Labelled

HYPERPARAMETERS: dict[str, Any] = {
    "dim": 16,
    "channels": 48,
    "convolutions": 1,
    "dropout": 0.1,
    "other_case": 0.0,
    "epochs": 12,
    "batch": 32,
    "learning_rate": 5e-3,
    "weight_decay": 0.05,
}


class Neighbours(nn.Module):
    """Adds to each word what a convolution over three of them makes of it.

    Args:
        channels: Length of the vector of a word.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, words: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Takes words and whether they are there, as ``Tagger`` does; returns the shape of the words."""
        heard: torch.Tensor = self.convolution(words.transpose(1, 2)).relu().transpose(1, 2)
        return words + heard * there


def train(part: Labelled, seed: int) -> Tagger:
    """Trains the network; the seed decides the initial weights, the order of the rows and the dropout."""
    torch.manual_seed(seed)
    dim, channels, convolutions = (HYPERPARAMETERS[name] for name in ("dim", "channels", "convolutions"))
    context = Neighbours(channels)
    model = Tagger(dim, channels, convolutions, context, channels, HYPERPARAMETERS["dropout"])
    return fit(model, part, HYPERPARAMETERS)
