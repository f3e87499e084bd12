"""Networks, and what is no network, over the columns of a table."""

from __future__ import annotations

import torch
from torch import nn

from rollout.layers import CategoryIndex, FillMissing, HourOfDay, Weekday

FEATURES = 6
AIRPORTS = ("EWR", "JFK", "LGA")
LABELS = 3


class Columns(nn.Module):
    """Numbers, a category and a time, each in its own way, to one vector of 14."""

    def __init__(self) -> None:
        super().__init__()
        self.airport, self.embed = CategoryIndex(AIRPORTS), nn.Embedding(len(AIRPORTS), 4)
        self.weekday, self.days = Weekday(), nn.Embedding(7, 4)
        self.hour, self.hours = HourOfDay(), nn.Embedding(24, 4)

    def forward(
        self, distance: torch.Tensor, weight: torch.Tensor, airport: torch.Tensor, at: torch.Tensor
    ) -> torch.Tensor:
        """Returns ``float32`` of shape ``(rows, 14)``."""
        numbers = torch.stack([torch.log1p(distance), weight / 100], 1)
        parts = [self.embed(self.airport(airport)), self.days(self.weekday(at)), self.hours(self.hour(at))]
        return torch.cat([numbers, *parts], 1)


class Mixed(nn.Module):
    """A perceptron over mixed columns."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = Columns()
        self.layers = nn.Sequential(nn.Linear(14, 16), nn.LeakyReLU(), nn.Dropout(0.3), nn.Linear(16, LABELS))

    def forward(self, *columns: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.layers(self.columns(*columns)) * 10
        return logits


class Standardised(nn.Module):
    """A linear regression over standardised columns."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.linspace(-1, 1, FEATURES))
        self.register_buffer("scale", torch.linspace(1, 3, FEATURES))
        self.linear = nn.Linear(FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns values of shape ``(rows, 1)``."""
        values: torch.Tensor = self.linear((x - self.mean) / self.scale)
        return values


class WithSpread(nn.Module):
    """A value and how far it may be off (Nix & Weigend 1994)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns values and positive spreads, shape ``(rows, 2)``."""
        value, spread = self.layers(x).unbind(1)
        return torch.stack([value, nn.functional.softplus(spread) + 0.1], 1)


class FeatureAttention(nn.Module):
    """Features as a sequence, with attention between them (Huang et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.randn(FEATURES, 8))
        self.attend, self.linear = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, LABELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        sequence = x.unsqueeze(2) * self.embed
        attended, _ = self.attend(sequence, sequence, sequence)
        logits: torch.Tensor = self.linear(attended.mean(1)) * 8
        return logits


class Nearest(nn.Module):
    """No network at all: the votes of the nearest of the rows that it keeps."""

    rows: torch.Tensor
    votes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.randn(50, FEATURES) * 4)
        self.register_buffer("votes", nn.functional.one_hot(torch.arange(50) % LABELS, LABELS).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logarithms of weighted shares of the votes."""
        distances = ((x.unsqueeze(1) - self.rows) ** 2).sum(2)
        near = torch.exp(-(distances - distances.amin(1, keepdim=True)) / 4)
        return torch.log(near @ self.votes + 1e-3)


class WithGaps(nn.Module):
    """A perceptron over columns that may be missing, each with a flag that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.fill, self.age = FillMissing((800.0, 150.0)), FillMissing(40.0, learn=True)
        self.airport, self.embed = CategoryIndex((*AIRPORTS, "elsewhere", "")), nn.Embedding(len(AIRPORTS) + 2, 4)
        self.layers = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, LABELS))

    def forward(self, flight: torch.Tensor, age: torch.Tensor, airport: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        numbers, lacks = self.fill(flight)
        years, has_none = self.age(age)
        flags = torch.cat([lacks, has_none.unsqueeze(1)], 1).float()
        parts = [numbers / 1000, years.unsqueeze(1) / 50, flags, self.embed(self.airport(airport))]
        logits: torch.Tensor = self.layers(torch.cat(parts, 1)) * 10
        return logits
