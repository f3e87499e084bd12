"""Version 2: convolutions over the frames, taught by voices that are made higher and lower, and by noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.speech.data import RATE, WORDS
from models.speech.spoken import COEFFICIENTS, Spoken, within
from rollout import Labelled
from rollout.bundle.columns import arguments, ragged

HYPERPARAMETERS: dict[str, Any] = {
    "channels": 32,
    "dropout": 0.3,
    "stretches": [0.8, 0.9, 1.0, 1.1, 1.25],
    "most_silence_s": 0.1,
    "noise_db": [-80, -30],  # of the peak
    "epochs": 15,
    "batch": 64,
    "learning_rate": 4e-3,
    "weight_decay": 1e-2,
}


class Convolutional(nn.Module):
    """Two convolutions over the frames of a word, and a linear layer on their mean and maximum over time."""

    def __init__(self) -> None:
        super().__init__()
        channels: int = HYPERPARAMETERS["channels"]
        self.spoken = Spoken()
        self.first = nn.Conv1d(COEFFICIENTS, channels, 5, padding=2)
        self.second = nn.Conv1d(channels, channels, 5, padding=2)
        self.head = nn.Sequential(nn.Dropout(HYPERPARAMETERS["dropout"]), nn.Linear(2 * channels, len(WORDS)))

    def forward(self, sound: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Takes samples, ``(rows, samples)``, and their lengths; returns logits of shape ``(rows, words)``."""
        return self.classify(*self.spoken(sound, lengths))

    def classify(self, word: torch.Tensor, place: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Takes what ``Spoken`` returns; returns logits of shape ``(rows, words)``."""
        inside = within(place, count).transpose(1, 2)
        heard = torch.relu(self.first(word.transpose(1, 2))) * inside
        heard = torch.relu(self.second(heard)) * inside
        logits: torch.Tensor = self.head(torch.cat([heard.sum(2) / count, heard.amax(2)], 1))
        return logits


def train(part: Labelled, seed: int) -> Convolutional:
    """Trains the network; the seed decides the initial weights, the noise, the rows' order and the dropout."""
    torch.manual_seed(seed)
    model = Convolutional().train()
    words, chance = torch.from_numpy(part.targets), np.random.default_rng(seed)
    heard = []
    for by in HYPERPARAMETERS["stretches"]:
        sounds = ragged(_disturb(_stretch(sound, by), chance) for sound in part.inputs["sound"])
        with torch.no_grad():
            heard.append(model.spoken(*map(torch.from_numpy, arguments({"sound": sounds}).values())))
    epochs: int = HYPERPARAMETERS["epochs"]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=HYPERPARAMETERS["learning_rate"], weight_decay=HYPERPARAMETERS["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        batches = [
            (stretched, rows)
            for stretched in heard
            for rows in torch.randperm(len(words)).split(HYPERPARAMETERS["batch"])
        ]
        for number in torch.randperm(len(batches)).tolist():
            stretched, rows = batches[number]
            loss = nn.functional.cross_entropy(model.classify(*(one[rows] for one in stretched)), words[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def _stretch(sound: NDArray[Any], by: float) -> NDArray[Any]:
    """Lets a sound last longer and be lower, or shorter and higher, as a record does at another speed."""
    stretched: NDArray[Any] = np.interp(np.arange(0, len(sound) - 1, 1 / by), np.arange(len(sound)), sound)
    return stretched


def _disturb(sound: NDArray[Any], chance: np.random.Generator) -> NDArray[np.float32]:
    """Puts silence around a sound, and noise over both."""
    most = round(HYPERPARAMETERS["most_silence_s"] * RATE)
    level = np.abs(sound).max() * 10 ** (chance.uniform(*HYPERPARAMETERS["noise_db"]) / 20)
    longer = np.pad(sound, chance.integers(0, most, 2))
    return (longer + chance.normal(0, level, len(longer))).astype(np.float32)
