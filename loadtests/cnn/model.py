"""A CNN of about 20 MFLOP a row, trained for a few epochs on the digits."""

from __future__ import annotations

import torch
from torch import nn

from rollout import Labelled

HYPERPARAMETERS = {"epochs": 8, "batch": 64, "learning_rate": 2e-3}


class Large(nn.Module):
    """Four convolutions on the full 32×32 image.

    Multiplications with an addition each, a row: 1,024 · 9 · 16 + 256 · 9 · 16 · 48 + 256 · 9 · 48 · 64 +
    64 · 9 · 64 · 32 + 512 · 10 = 10.2 million, thus 20.3 MFLOP.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_block(1, 16),
            nn.MaxPool2d(2),
            *_block(16, 48),
            *_block(48, 64),
            nn.MaxPool2d(2),
            *_block(64, 32),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, 32, 32)``; returns logits of shape ``(rows, 10)``."""
        logits: torch.Tensor = self.layers(image.unsqueeze(1).float() / 255)
        return logits


def train(part: Labelled, seed: int) -> Large:
    """Trains the network; the seed decides the initial weights and the order of the rows."""
    torch.manual_seed(seed)
    model = Large().train()
    images, digits = torch.from_numpy(part.inputs["image"]), torch.from_numpy(part.targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=HYPERPARAMETERS["learning_rate"])
    for _ in range(int(HYPERPARAMETERS["epochs"])):
        for rows in torch.randperm(len(digits)).split(int(HYPERPARAMETERS["batch"])):
            loss = nn.functional.cross_entropy(model(images[rows]), digits[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def _block(channels: int, filters: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
