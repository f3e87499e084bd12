"""Version 1: knows the timetable alone."""

from __future__ import annotations

from typing import Any

import torch

from models.arrivals.network import Arrivals, Nothing, fit
from rollout.bundle.schema import Labelled

HYPERPARAMETERS: dict[str, Any] = {
    "hidden": 64,
    "epochs": 8,
    "batch": 128,
    "learning_rate": 5e-3,
    "weight": 0.3,  # of the minutes
}


def train(part: Labelled, seed: int) -> Arrivals:
    """Trains the network; the seed decides the initial weights and the order of the rows."""
    torch.manual_seed(seed)
    return fit(Arrivals(Nothing(), HYPERPARAMETERS["hidden"], part.targets["minutes"]), part, HYPERPARAMETERS)
