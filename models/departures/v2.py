"""Version 2: knows the day of the month in place of the day of the week."""

from __future__ import annotations

from typing import Any

import torch

from models.departures.network import Departures, fit
from rollout.bundle.schema import Labelled
from rollout.layers import DayOfMonth

HYPERPARAMETERS: dict[str, Any] = {"hidden": 64, "epochs": 30, "batch": 128, "learning_rate": 5e-3}


def train(part: Labelled, seed: int) -> Departures:
    """Trains the network; the seed decides the initial weights and the order of the rows."""
    torch.manual_seed(seed)
    model = Departures(DayOfMonth(), days=32, hidden=HYPERPARAMETERS["hidden"], flights=part.targets)
    return fit(model, part, HYPERPARAMETERS)
