"""Preprocessing, inside the model: from the raw image to a standardised 8×8 grid."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class Standardise(nn.Module):
    """Pools 4×4 blocks to the grid of the data set, scales to 0…1, and standardises each cell.

    Args:
        train_images: The training part only, ``uint8`` of shape ``(rows, 32, 32)``.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, train_images: NDArray[np.uint8]) -> None:
        super().__init__()
        grids = self._pool(torch.from_numpy(train_images))
        self.register_buffer("mean", grids.mean(0))
        # A cell that is the same in every image tells nothing; it stays 0 rather than being blown up.
        scale = grids.std(0)
        self.register_buffer("scale", torch.where(scale > 0.01, scale, 1.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, 32, 32)``; returns ``float32`` of shape ``(rows, 8, 8)``."""
        return (self._pool(image) - self.mean) / self.scale

    def _pool(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(image.unsqueeze(1).float(), 4).squeeze(1) / 255
