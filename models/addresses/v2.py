"""Version 2: a word looks at all others, through a recurrent network in both directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.addresses.tagger import Tagger, fit
from rollout.bundle.schema import Labelled

HYPERPARAMETERS: dict[str, Any] = {
    "dim": 24,
    "channels": 64,
    "convolutions": 2,
    "dropout": 0.2,
    "other_case": 0.2,
    "epochs": 20,
    "batch": 32,
    "learning_rate": 4e-3,
    "weight_decay": 0.05,
}


class Recurrent(nn.Module):
    """A GRU in both directions.

    Args:
        channels: Length of the vector of a word, and of what each direction returns.
        dropout: Share of features that training leaves out.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(channels, channels, batch_first=True, bidirectional=True)

    def forward(self, words: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Takes words and whether they are there, as ``Tagger`` does; returns ``(rows, words, 2 * channels)``."""
        states: torch.Tensor = self.gru(self.dropout(words))[0]
        return states * there


def train(part: Labelled, seed: int) -> Tagger:
    """Trains the network; the seed decides the initial weights, the rows' order, their case and the dropout."""
    torch.manual_seed(seed)
    dim, channels, convolutions = (HYPERPARAMETERS[name] for name in ("dim", "channels", "convolutions"))
    context = Recurrent(channels, HYPERPARAMETERS["dropout"])
    model = Tagger(dim, channels, convolutions, context, 2 * channels, HYPERPARAMETERS["dropout"])
    return fit(model, part, HYPERPARAMETERS)
