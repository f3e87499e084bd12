"""Version 1, the baseline: multinomial logistic regression on the standardised grid."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from models.digits.preprocessing import Standardise
from rollout import Labelled

HYPERPARAMETERS = {"C": 0.05, "max_iter": 1000}


class Linear(nn.Module):
    """One weight for each pair of a cell and a digit."""

    def __init__(self, standardise: Standardise) -> None:
        super().__init__()
        self.standardise = standardise
        self.linear = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, 32, 32)``; returns logits of shape ``(rows, 10)``."""
        return self.classify(self.standardise(image))

    def classify(self, cells: torch.Tensor) -> torch.Tensor:
        """Takes standardised grids of shape ``(rows, 8, 8)``; returns logits of shape ``(rows, 10)``."""
        logits: torch.Tensor = self.linear(cells.flatten(1))
        return logits


def train(part: Labelled, seed: int) -> Linear:
    """Fits the regression; its optimum does not depend on the seed."""
    images = part.inputs["image"]
    model = Linear(Standardise(images))
    with torch.no_grad():
        features = model.standardise(torch.from_numpy(images)).flatten(1).numpy()
        fitted = LogisticRegression(**HYPERPARAMETERS, random_state=seed).fit(features, part.targets)
        model.linear.weight.copy_(torch.from_numpy(fitted.coef_))
        model.linear.bias.copy_(torch.from_numpy(fitted.intercept_))
    return model.eval()
