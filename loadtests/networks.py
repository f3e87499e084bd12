"""Networks of the size that teams bring, written for this and with random weights: what they cost is real."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import torch
from torch import nn

LABELS = 10
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as everybody uses them
SPREAD = 2.0  # of the logits


class Normalized(nn.Module):
    """An image network with its preprocessing: takes ``uint8`` of shape ``(rows, height, width, 3)``."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns logits, shape ``(rows, LABELS)``."""
        pixels = image.permute(0, 3, 1, 2).float() / 255
        logits: torch.Tensor = self.network((pixels - self.mean) / self.deviation)
        return logits


class Residual(nn.Module):
    """Layers beside a short cut; what comes in is brought to the shape of what goes out where these differ."""

    def __init__(self, layers: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.layers, self.shortcut, self.after = layers, shortcut, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds both."""
        added: torch.Tensor = self.after(self.layers(x) + self.shortcut(x))
        return added


def resnet50() -> nn.Module:
    """ResNet-50 (He et al. 2015): 23.5 million weights but for the classes, 4.1 billion multiplications a row."""
    layers: list[nn.Module] = [convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for step in (stride, *repeat(1, blocks - 1)):
            inner = (convolution(channels, width, 1), nn.ReLU(), convolution(width, width, 3, step), nn.ReLU())
            is_same = step == 1 and channels == 4 * width
            shortcut = nn.Identity() if is_same else convolution(channels, 4 * width, 1, step)
            layers.append(Residual(nn.Sequential(*inner, convolution(width, 4 * width, 1)), shortcut, nn.ReLU()))
            channels = 4 * width
    return Normalized(_classifier(layers, channels))


def mobilenet() -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018): 2.2 million weights but for the classes, 300 million multiplications."""
    layers: list[nn.Module] = [
        convolution(3, 32, 3, 2),
        nn.ReLU6(),
        *_separable(32, 32, 1, 32),
        convolution(32, 16, 1),
    ]
    channels = 16
    for width, blocks, stride in ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)):
        for step in (stride, *repeat(1, blocks - 1)):
            wide = 6 * channels
            inner = nn.Sequential(*_separable(channels, wide, step, wide), convolution(wide, width, 1))
            layers.append(
                Residual(inner, nn.Identity(), nn.Identity()) if step == 1 and channels == width else inner
            )
            channels = width
    layers += [convolution(channels, 1280, 1), nn.ReLU6()]
    return Normalized(_classifier(layers, 1280))


class Encoder(nn.Module):
    """A transformer encoder of MiniLM's size over the bytes of a text, which end where the zeros begin.

    Six layers, 384 wide, 12 heads: 10.7 million weights (Wang et al. 2020, table 1).
    """

    def __init__(self, longest: int = 128) -> None:
        super().__init__()
        self.tokens = nn.Embedding(256, 384)
        self.places = nn.Parameter(torch.randn(longest, 384) * 0.02)
        layer = nn.TransformerEncoderLayer(384, 12, 1536, dropout=0.0, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.network = nn.Sequential(nn.Linear(384, LABELS))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, longest)``; returns logits, shape ``(rows, LABELS)``."""
        is_there = text > 0
        is_there = is_there | (torch.arange(text.shape[1]) == 0)  # an empty text has one place to look at
        found = self.layers(self.tokens(text.long()) + self.places, src_key_padding_mask=~is_there)
        weights = is_there.unsqueeze(2).float()
        logits: torch.Tensor = self.network((found * weights).sum(1) / weights.sum(1))
        return logits


def settled(module: nn.Module, rows: torch.Tensor) -> nn.Module:
    """Brings random weights to where a training leaves them: statistics of layers, and logits of some spread.

    Args:
        module: A network whose last layer, ``network[-1]``, gives the logits.
        rows: Some thirty rows or more of its input.
    """
    torch.manual_seed(0)
    last = list(_linear(module))[-1]
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the average of all batches
    with torch.no_grad():
        if any(_normalizations(module)):
            module.train()(rows)
        module.eval()
        nn.init.normal_(last.weight)
        nn.init.zeros_(last.bias)
        logits = module(rows)
        mean, scale = logits.mean(0), SPREAD / logits.std(0)
        last.weight.mul_(scale.unsqueeze(1))
        last.bias.copy_(-mean * scale)
    return module


def convolution(inside: int, outside: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outside)
    )


def _separable(inside: int, wide: int, stride: int, groups: int) -> Iterator[nn.Module]:
    if inside != wide:
        yield from (convolution(inside, wide, 1), nn.ReLU6())
    yield from (convolution(wide, wide, 3, stride, groups), nn.ReLU6())


def _classifier(layers: list[nn.Module], channels: int) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, LABELS))


def _normalizations(module: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))


def _linear(module: nn.Module) -> Iterator[nn.Linear]:
    return (layer for layer in module.modules() if isinstance(layer, nn.Linear))
