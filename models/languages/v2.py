"""Version 2: triples of bytes as well, and a hidden layer with dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.languages.data import LANGUAGES
from models.languages.ngrams import NgramClassifier, fit
from rollout.bundle.schema import Labelled

HYPERPARAMETERS: dict[str, Any] = {
    "sizes": [1, 2, 3],
    "buckets": 8192,
    "dim": 32,
    "hidden": 64,
    "dropout": 0.3,
    "epochs": 30,
    "batch": 64,
    "learning_rate": 5e-3,
    "weight_decay": 0.3,
}


def train(part: Labelled, seed: int) -> NgramClassifier:
    """Trains the network; the seed decides the initial weights, the rows' order, the excerpts and the dropout."""
    torch.manual_seed(seed)
    dim, hidden, dropout = (HYPERPARAMETERS[name] for name in ("dim", "hidden", "dropout"))
    head = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(dim, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, len(LANGUAGES)),
    )
    model = NgramClassifier(HYPERPARAMETERS["sizes"], HYPERPARAMETERS["buckets"], dim, head)
    return fit(model, part, HYPERPARAMETERS)
