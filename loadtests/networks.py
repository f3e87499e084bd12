"""Networks of the size that teams bring, written for this: what they cost is real.

Their weights are random but for a short training, after which they decide clearly: with random weights all
decisions are ties, which say nothing about how exact a variant is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import torch
from torch import nn

LABELS = 10
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as everybody uses them
SMALL = 64  # pixels a side of the images that a network is trained on
STEPS, FEWEST, ROWS = 120, 40, 32  # of a training
RATE, ENOUGH = 0.003, 0.05  # its step size, and the mean loss of some steps at which it ends
LEARNT = 10  # so many
ADDED = 0.25  # what a block adds to what it is given at first; trainings begin with little
RIDGE, SCALE = 0.1, 10.0  # of the classes of a network of which only these are fitted


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
        nn.init.constant_(list(_normalizations(layers))[-1].weight, ADDED)

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
        for weight in self.layers.parameters():  # which are copies of one layer's
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)
        self.network = nn.Sequential(nn.Linear(384, LABELS))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, longest)``; returns logits, shape ``(rows, LABELS)``."""
        is_there = text > 0
        is_there = is_there | (torch.arange(text.shape[1]) == 0)  # an empty text has one place to look at
        found = self.layers(self.tokens(text.long()) + self.places, src_key_padding_mask=~is_there)
        weights = is_there.unsqueeze(2).float()
        logits: torch.Tensor = self.network((found * weights).sum(1) / weights.sum(1))
        return logits


def trained(module: nn.Module, rows: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Trains a network until it decides these rows: one of images on smaller ones, of any other only the classes.

    Args:
        module: A network of this file.
        rows: A hundred rows of its input or more.
        labels: What each is, from 0 to ``LABELS`` - 1.
    """
    torch.manual_seed(0)
    if any(_normalizations(module)):
        _train(module, rows, labels)
    else:
        _fit_classes(module.eval(), rows, labels)
    return module.eval()


def _train(module: nn.Module, rows: torch.Tensor, labels: torch.Tensor) -> None:
    pixels = rows.permute(0, 3, 1, 2).float()
    small = nn.functional.interpolate(pixels, (SMALL, SMALL), mode="area").permute(0, 2, 3, 1)
    optimizer = torch.optim.AdamW(module.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    losses: list[float] = []
    module.train()
    while len(losses) < STEPS and not (len(losses) >= FEWEST and sum(losses[-LEARNT:]) < LEARNT * ENOUGH):
        picked = torch.randint(0, len(rows), (ROWS,))
        batch = small[picked]
        loss = nn.functional.cross_entropy(module(batch.flip(2) if len(losses) % 2 else batch), labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    for layer in _normalizations(module):  # what they saw so far was small
        layer.reset_running_stats()
        layer.momentum = None  # the average of all batches
    with torch.no_grad():
        for batch in rows[: 3 * ROWS].split(ROWS):
            module(batch)


def _fit_classes(module: nn.Module, rows: torch.Tensor, labels: torch.Tensor) -> None:
    """Fits the last layer by least squares, with a ridge."""
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        for batch in rows.split(ROWS):
            module(batch)
    hook.remove()
    with torch.no_grad():
        features = torch.cat(seen).double()
        middle, spread = features.mean(0), features.std(0) + 1e-6
        scaled = (features - middle) / spread
        products = scaled @ scaled.T
        ridge = RIDGE * products.diagonal().mean() * torch.eye(len(rows), dtype=torch.float64)
        wanted = nn.functional.one_hot(labels, LABELS).double() - 1 / LABELS
        weights = SCALE * (scaled.T @ torch.linalg.solve(products + ridge, wanted)) / spread.unsqueeze(1)
        last.weight.copy_(weights.T)
        last.bias.copy_(-middle @ weights)


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
