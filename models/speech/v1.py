"""Version 1, the baseline: a regression on what the beginning, the middle and the end of a word sound like."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from models.speech.data import WORDS
from models.speech.spoken import COEFFICIENTS, Spoken
from rollout import Labelled
from rollout.bundle.columns import arguments

HYPERPARAMETERS: dict[str, Any] = {"C": 0.1, "max_iter": 2000}
THIRDS = 3


class Thirds(nn.Module):
    """The mean and the deviation of each coefficient in each third of a word, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.spoken = Spoken()
        self.linear = nn.Linear(2 * THIRDS * COEFFICIENTS, len(WORDS))

    def forward(self, sound: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Takes samples, ``(rows, samples)``, and their lengths; returns logits of shape ``(rows, words)``."""
        return self.classify(*self.spoken(sound, lengths))

    def classify(self, word: torch.Tensor, place: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Takes what ``Spoken`` returns; returns logits of shape ``(rows, words)``."""
        logits: torch.Tensor = self.linear(self.features(word, place, count))
        return logits

    def features(self, word: torch.Tensor, place: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Takes what ``Spoken`` returns; returns features of shape ``(rows, 2 * thirds * coefficients)``."""
        third = place * THIRDS // count
        features = []
        for number in range(THIRDS):
            inside = (third == number).unsqueeze(2).float()
            frames = inside.sum(1).clamp(min=1)
            mean = (word * inside).sum(1) / frames
            features += [mean, (((word - mean.unsqueeze(1)) * inside).square().sum(1) / frames).sqrt()]
        return torch.cat(features, 1)


def train(part: Labelled, seed: int) -> Thirds:
    """Fits the regression; its optimum does not depend on the seed."""
    model = Thirds()
    with torch.no_grad():
        features = model.features(*model.spoken(*map(torch.from_numpy, arguments(part.inputs).values())))
        fitted = LogisticRegression(**HYPERPARAMETERS, random_state=seed).fit(features.numpy(), part.targets)
        model.linear.weight.copy_(torch.from_numpy(fitted.coef_))
        model.linear.bias.copy_(torch.from_numpy(fitted.intercept_))
    return model.eval()
