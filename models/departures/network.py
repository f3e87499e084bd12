"""What both versions share: a network over a part of the date, the hour and the airport, and its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.departures.data import ORIGIN
from rollout.bundle.schema import Labelled
from rollout.layers import CategoryIndex, HourOfDay
from rollout.training.fit import Fit

SMALLEST_SPREAD = 0.02
DAY = 86_400


class Departures(nn.Module):
    """Embeds the calendar's day, the hour and the airport; two linear layers tell the flights and their spread.

    Args:
        calendar: Takes seconds since 1970; returns the day that matters, ``int64`` of shape ``(rows,)``.
        days: One more than the largest day.
        hidden: Units of the hidden layer.
        flights: Targets of the training part, shape ``(rows,)``: their mean and deviation scale the outputs.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, calendar: nn.Module, days: int, hidden: int, flights: NDArray[Any]) -> None:
        super().__init__()
        self.calendar, self.hour, self.origin = calendar, HourOfDay(), CategoryIndex(ORIGIN.values)
        self.days, self.hours = nn.Embedding(days, 8), nn.Embedding(24, 16)
        self.origins = nn.Embedding(len(ORIGIN.values), 8)
        self.layers = nn.Sequential(nn.Linear(32, hidden), nn.ReLU(), nn.Linear(hidden, 2))
        self.register_buffer("mean", torch.tensor(float(flights.mean())))
        self.register_buffer("scale", torch.tensor(float(flights.std())))

    def forward(self, at: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
        """Predicts the flights of an hour.

        Args:
            at: ``int64`` of shape ``(rows,)``.
            origin: ``uint8`` of shape ``(rows, 3)``.

        Returns:
            Flights and their positive spread, ``float32`` of shape ``(rows, 2)``.
        """
        parts = [self.days(self.calendar(at)), self.hours(self.hour(at)), self.origins(self.origin(origin))]
        value, spread = self.layers(torch.cat(parts, dim=1)).unbind(1)
        spread = nn.functional.softplus(spread) + SMALLEST_SPREAD
        return torch.stack([self.mean + self.scale * value, self.scale * spread], dim=1)


def make_fit(calendar: Callable[[], nn.Module], days: int) -> Fit:
    """Returns how a version is trained: with the likelihood of a Laplace distribution, for its value and spread.

    Args:
        calendar: Makes the layer that knows the day; see ``Departures``.
        days: One more than the largest day.
    """

    def make_module(part: Labelled, hyperparameters: Mapping[str, Any]) -> Departures:
        return Departures(calendar(), days, hyperparameters["hidden"], part.targets)

    return Fit(module=make_module, epochs=30, batch=256, learning_rate=1e-2, validation=some_days)


def some_days(part: Labelled) -> NDArray[np.bool_]:
    """Tells which rows are for validation: those of whole days, one in ten."""
    days = part.inputs["at"] // DAY
    chosen: NDArray[np.bool_] = np.isin(days, np.unique(days)[5::10])
    return chosen
