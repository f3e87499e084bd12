"""Version 2: a small convolutional network. Batch norm and dropout make eval mode matter."""

from __future__ import annotations

import torch
from torch import nn

from models.digits.preprocessing import Standardise
from rollout import Labelled

HYPERPARAMETERS = {"epochs": 60, "batch": 64, "learning_rate": 3e-3, "weight_decay": 1e-3, "dropout": 0.3}


class Convolutional(nn.Module):
    """Two convolutions on the 8×8 grid and two linear layers."""

    def __init__(self, standardise: Standardise) -> None:
        super().__init__()
        self.standardise = standardise
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(HYPERPARAMETERS["dropout"]),
            nn.Linear(32 * 4 * 4, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, 32, 32)``; returns logits of shape ``(rows, 10)``."""
        return self.classify(self.standardise(image))

    def classify(self, cells: torch.Tensor) -> torch.Tensor:
        """Takes standardised grids of shape ``(rows, 8, 8)``; returns logits of shape ``(rows, 10)``."""
        logits: torch.Tensor = self.layers(cells.unsqueeze(1))
        return logits


def train(part: Labelled, seed: int) -> Convolutional:
    """Trains the network; the seed decides the initial weights, the order of the rows and the dropout."""
    torch.manual_seed(seed)
    model = Convolutional(Standardise(part.inputs["image"])).train()
    images, digits = torch.from_numpy(part.inputs["image"]), torch.from_numpy(part.targets)
    epochs, size = int(HYPERPARAMETERS["epochs"]), int(HYPERPARAMETERS["batch"])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=HYPERPARAMETERS["learning_rate"], weight_decay=HYPERPARAMETERS["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(digits)).split(size):
            loss = nn.functional.cross_entropy(model(images[rows]), digits[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()
