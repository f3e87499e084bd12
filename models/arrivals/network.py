"""What both versions share: a network over the timetable, with two answers, and its training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from models.arrivals.data import CARRIER, DESTINATION, LABELS, ORIGIN
from rollout.bundle.schema import Labelled
from rollout.layers import DAY, CategoryIndex, FillMissing, HourOfDay

DIM = 8
SMALLEST_SPREAD = 0.02
# Minutes that a flight left late: earlier than the first is as early, and later than the others as late.
EARLIEST, SHORT, LONG = -20.0, 60.0, 300.0


class Season(nn.Module):
    """The day of the year as a point on a circle that is gone around once in 365.25 days."""

    def forward(self, seconds: torch.Tensor) -> torch.Tensor:
        """Takes seconds since 1970, ``int64`` of shape ``(rows,)``; returns ``float32`` of ``(rows, 2)``."""
        angle = (seconds // DAY % 1461).float() * (2 * math.pi / 365.25)  # 1461 days are four years
        return torch.stack([angle.sin(), angle.cos()], 1)


class Timetable(nn.Module):
    """What the timetable says of a flight: embeddings of airports, carrier and hour, and the season."""

    size = 4 * DIM + 2

    def __init__(self) -> None:
        super().__init__()
        self.season, self.hour = Season(), HourOfDay()
        self.origin, self.destination, self.carrier = (
            CategoryIndex(field.values) for field in (ORIGIN, DESTINATION, CARRIER)
        )
        self.origins, self.destinations, self.carriers, self.hours = (
            nn.Embedding(count, DIM)
            for count in (len(ORIGIN.values), len(DESTINATION.values), len(CARRIER.values), 24)
        )

    def forward(
        self, at: torch.Tensor, origin: torch.Tensor, destination: torch.Tensor, carrier: torch.Tensor
    ) -> torch.Tensor:
        """Takes the fields; returns ``float32`` of shape ``(rows, size)``."""
        return torch.cat(
            [
                self.season(at),
                self.hours(self.hour(at)),
                self.origins(self.origin(origin)),
                self.destinations(self.destination(destination)),
                self.carriers(self.carrier(carrier)),
            ],
            dim=1,
        )


class Delay(nn.Module):
    """Whether a flight has left, and how late, on a scale for short delays and on one for long ones."""

    size = 3

    def __init__(self) -> None:
        super().__init__()
        self.fill = FillMissing()

    def forward(self, delay: torch.Tensor) -> torch.Tensor:
        """Takes minutes, NaN before the flight left; returns ``float32`` of shape ``(rows, size)``."""
        minutes, has_not_left = self.fill(delay)
        late = minutes.clamp(min=EARLIEST)
        return torch.stack([has_not_left.float(), late.clamp(max=SHORT) / SHORT, late.clamp(max=LONG) / LONG], 1)


class Nothing(nn.Module):
    """What a version that does not look at the delay makes of it."""

    size = 0

    def forward(self, delay: torch.Tensor) -> torch.Tensor:
        """Takes minutes; returns ``float32`` of shape ``(rows, 0)``."""
        return delay.unsqueeze(1)[:, :0]


class Arrivals(nn.Module):
    """Two linear layers over the timetable and the delay, which tell both answers.

    Args:
        delay: ``Delay`` or ``Nothing``.
        hidden: Units of the hidden layer.
        minutes: In the air, of the training part, shape ``(rows,)``: mean and deviation scale the second answer.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, delay: Delay | Nothing, hidden: int, minutes: NDArray[Any]) -> None:
        super().__init__()
        self.timetable, self.delay = Timetable(), delay
        self.layers = nn.Sequential(
            nn.Linear(Timetable.size + delay.size, hidden), nn.ReLU(), nn.Linear(hidden, len(LABELS) + 2)
        )
        self.register_buffer("mean", torch.tensor(float(minutes.mean())))
        self.register_buffer("scale", torch.tensor(float(minutes.std())))

    def forward(
        self,
        at: torch.Tensor,
        origin: torch.Tensor,
        destination: torch.Tensor,
        carrier: torch.Tensor,
        delay: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Predicts whether a flight arrives late, and its time in the air.

        Args:
            at: ``int64`` of shape ``(rows,)``.
            origin: ``uint8`` of shape ``(rows, 3)``.
            destination: ``uint8`` of shape ``(rows, 3)``.
            carrier: ``uint8`` of shape ``(rows, 2)``.
            delay: ``float32`` of shape ``(rows,)``, NaN before the flight left.

        Returns:
            ``late``: logits of shape ``(rows, 2)``; ``minutes``: minutes and positive spread, ``(rows, 2)``.
        """
        features = torch.cat([self.timetable(at, origin, destination, carrier), self.delay(delay)], dim=1)
        outputs = self.layers(features)
        value, spread = outputs[:, len(LABELS) :].unbind(1)
        spread = nn.functional.softplus(spread) + SMALLEST_SPREAD
        minutes = torch.stack([self.mean + self.scale * value, self.scale * spread], dim=1)
        return {"late": outputs[:, : len(LABELS)], "minutes": minutes}


def fit(model: Arrivals, part: Labelled, hyperparameters: Mapping[str, Any]) -> Arrivals:
    """Trains the network with the sum of two likelihoods, of a class and of a Laplace distribution."""
    model.train()
    inputs = [torch.from_numpy(array) for array in part.inputs.values()]
    late, minutes = (torch.from_numpy(part.targets[name].copy()) for name in ("late", "minutes"))
    epochs: int = hyperparameters["epochs"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=hyperparameters["learning_rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(late)).split(hyperparameters["batch"]):
            outputs = model(*(array[rows] for array in inputs))
            value, spread = (outputs["minutes"] / model.scale).unbind(1)
            likelihood = ((minutes[rows] / model.scale - value).abs() / spread + spread.log()).mean()
            loss = (
                nn.functional.cross_entropy(outputs["late"], late[rows]) + hyperparameters["weight"] * likelihood
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()
