"""Version 1: single bytes and pairs of them, and one weight for each pair of a feature and a language."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.languages.data import LANGUAGES
from models.languages.ngrams import NgramClassifier, fit
from rollout.bundle.schema import Labelled

HYPERPARAMETERS: dict[str, Any] = {
    "sizes": [1, 2],
    "buckets": 8192,
    "dim": 32,
    "epochs": 30,
    "batch": 64,
    "learning_rate": 2e-2,
    "weight_decay": 0.1,
}


def train(part: Labelled, seed: int) -> NgramClassifier:
    """Trains the network; the seed decides the initial weights, the order of the rows and the excerpts."""
    torch.manual_seed(seed)
    dim: int = HYPERPARAMETERS["dim"]
    head = nn.Linear(dim, len(LANGUAGES))
    model = NgramClassifier(HYPERPARAMETERS["sizes"], HYPERPARAMETERS["buckets"], dim, head)
    return fit(model, part, HYPERPARAMETERS)
