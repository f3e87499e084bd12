"""Networks that look at pictures."""

from __future__ import annotations

import torch
from torch import nn

SIDE = 16
LABELS = 4


class Scaled(nn.Module):
    """What most networks begin with: ``uint8`` of shape ``(rows, 16, 16, 3)`` to standardised channels."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns ``float32`` of shape ``(rows, 3, 16, 16)``."""
        return ((image.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)


class Pooled(nn.Module):
    """The mean over the picture, and a linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, LABELS)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, channels, height, width)``; returns logits."""
        logits: torch.Tensor = self.linear(features.mean((2, 3))) * 20
        return logits


def plain_cnn() -> nn.Module:
    """Convolutions, batch norm, pooling, dropout."""
    return nn.Sequential(
        Scaled(),
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        Pooled(16),
    )


def depthwise() -> nn.Module:
    """Depthwise and pointwise convolutions, as in MobileNet (Howard et al. 2017)."""
    return nn.Sequential(
        Scaled(),
        nn.Conv2d(3, 12, 3, stride=2, padding=1),
        nn.ReLU6(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12),
        nn.BatchNorm2d(12),
        nn.Hardswish(),
        nn.Conv2d(12, 24, 1),
        nn.ReLU6(),
        Pooled(24),
    )


class Residual(nn.Module):
    """A block whose input is added to its output (He et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(2, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes and returns ``(rows, channels, height, width)``."""
        return torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))


def residual() -> nn.Module:
    """Residual blocks with group norm."""
    return nn.Sequential(
        Scaled(), nn.Conv2d(3, 8, 3, padding=1), Residual(8), nn.AvgPool2d(2), Residual(8), Pooled(8)
    )


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole picture shows (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(channels, 4), nn.SiLU(), nn.Linear(4, channels), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes and returns ``(rows, channels, height, width)``."""
        weights: torch.Tensor = self.weigh(x.mean((2, 3)))
        return x * weights[:, :, None, None]


def squeeze_excite() -> nn.Module:
    """Convolution and squeeze-and-excitation."""
    return nn.Sequential(
        Scaled(), nn.Conv2d(3, 8, 3), nn.SiLU(), SqueezeExcite(8), nn.Conv2d(8, 16, 3), Pooled(16)
    )


class ConvNext(nn.Module):
    """A large depthwise kernel, layer norm over channels, GELU (Liu et al. 2022)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes and returns ``(rows, channels, height, width)``."""
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        added: torch.Tensor = self.narrow(nn.functional.gelu(self.widen(y)))
        return x + added.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """A stem of patches and a ConvNeXt block."""
    return nn.Sequential(Scaled(), nn.Conv2d(3, 8, 2, stride=2), ConvNext(8), Pooled(8))


class VisionTransformer(nn.Module):
    """Patches as a sequence, with a learned first element (Dosovitskiy et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.patches = Scaled(), nn.Conv2d(3, 16, 4, stride=4)
        self.first = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 17, 16) * 0.1)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.linear = nn.Linear(16, LABELS)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        patches = self.patches(self.scale(image)).flatten(2).transpose(1, 2)
        sequence = torch.cat([self.first.expand(patches.shape[0], -1, -1), patches], 1) + self.position
        logits: torch.Tensor = self.linear(self.encoder(sequence)[:, 0]) * 8
        return logits


def weight_norm() -> nn.Module:
    """Weights that are parametrized: computed from others at each call (Salimans & Kingma 2016)."""
    norm = nn.utils.parametrizations.weight_norm
    return nn.Sequential(
        Scaled(), norm(nn.Conv2d(3, 8, 3)), nn.ELU(), norm(nn.Conv2d(8, 8, 3, stride=2)), nn.ELU(), Pooled(8)
    )


class Siamese(nn.Module):
    """Are two pictures alike? The same encoder for both (Bromley et al. 1993)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            Scaled(), nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Returns logits of «different» and «alike»."""
        alike = nn.functional.cosine_similarity(self.encode(one), self.encode(other))
        return torch.stack([torch.full_like(alike, 0.9), alike], 1) * 40
