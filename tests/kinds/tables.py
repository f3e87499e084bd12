"""Networks, and what is no network, over the columns of a table."""

from __future__ import annotations

import torch
from torch import nn

from rollout.layers import CategoryIndex, HourOfDay, Weekday

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


class WideAndDeep(nn.Module):
    """A linear model and a network, added (Cheng et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.columns, self.wide = Columns(), nn.Linear(14, LABELS)
        self.deep = nn.Sequential(nn.Linear(14, 16), nn.ReLU(), nn.Linear(16, LABELS))

    def forward(
        self, distance: torch.Tensor, weight: torch.Tensor, airport: torch.Tensor, at: torch.Tensor
    ) -> torch.Tensor:
        """Returns logits."""
        x = self.columns(distance, weight, airport, at)
        logits: torch.Tensor = (self.wide(x) + self.deep(x)) * 10
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


class Crossed(nn.Module):
    """Products of features, layer by layer (Wang et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = nn.ModuleList([nn.Linear(FEATURES, FEATURES) for _ in range(2)])
        self.linear = nn.Linear(FEATURES, LABELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        crossed = x
        for layer in self.cross:
            crossed = x * layer(crossed) / 10 + crossed
        logits: torch.Tensor = self.linear(crossed)
        return logits


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


class Experts(nn.Module):
    """Several networks, weighted by another (Jacobs et al. 1991)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(FEATURES, 3)
        self.experts = nn.ModuleList([nn.Linear(FEATURES, LABELS) for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        answers = torch.stack([expert(x) for expert in self.experts], 1)
        return (torch.softmax(self.gate(x), 1).unsqueeze(2) * answers).sum(1)


class Radial(nn.Module):
    """A regression by radial basis functions (Broomhead & Lowe 1988)."""

    centres: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres", torch.randn(20, FEATURES) * 4)
        self.linear = nn.Linear(20, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns values of shape ``(rows, 1)``."""
        distances = ((x.unsqueeze(1) - self.centres) ** 2).mean(2)
        values: torch.Tensor = self.linear(torch.exp(-distances / 8))
        return values


class Trees(nn.Module):
    """Complete decision trees as gathers, as Hummingbird compiles them (Nakandala et al. 2020)."""

    feature: torch.Tensor
    threshold: torch.Tensor
    leaves: torch.Tensor

    def __init__(self, trees: int = 5, depth: int = 3) -> None:
        super().__init__()
        self.depth = depth
        self.register_buffer("feature", torch.randint(FEATURES, (trees, 2**depth - 1)))
        self.register_buffer("threshold", torch.randn(trees, 2**depth - 1) * 4)
        self.register_buffer("leaves", torch.randn(trees, 2**depth, LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        total = torch.zeros(x.shape[0], LABELS)
        for feature, threshold, leaves in zip(self.feature, self.threshold, self.leaves, strict=True):
            node = torch.zeros_like(x[:, 0], dtype=torch.int64)
            for _ in range(self.depth):
                goes_right = x.gather(1, feature[node].unsqueeze(1))[:, 0] > threshold[node]
                node = 2 * node + 1 + goes_right.long()
            total = total + leaves[node - leaves.shape[0] + 1]
        return total
