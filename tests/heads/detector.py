"""Pictures with lamps and walls in them, and a network that finds them: a window at each place of a grid."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rollout import Boxes, Image, Labelled, box_targets

SIDE, WINDOW, STRIDE, OBJECT = 32, 8, 3, 11
PLACES = (SIDE - WINDOW) // STRIDE + 1
LABELS = ["lamp", "wall"]
INPUTS = {"image": Image(height=SIDE, width=SIDE, fit="exact")}
HEAD = Boxes(labels=LABELS, candidates=PLACES**2, overlap=0.3, most=4, risk=0.1)


class Found(NamedTuple):
    """What a network returns.

    Attributes:
        boxes: Shape ``(rows, candidates, 4)``.
        logits: Shape ``(rows, candidates, labels)``.
    """

    boxes: torch.Tensor
    logits: torch.Tensor


class Detector(torch.nn.Module):
    """The darkest pixel of a window says what fills it: a lamp is bright, a wall is grey."""

    def __init__(self) -> None:
        super().__init__()
        starts = torch.arange(PLACES) * STRIDE - (OBJECT - WINDOW) / 2
        top, left = torch.meshgrid(starts, starts, indexing="ij")
        edges = torch.stack([left, top, left + OBJECT, top + OBJECT], -1)
        self.edges = torch.nn.Buffer(edges.reshape(1, -1, 4) / SIDE)
        self.darkest = torch.nn.MaxPool2d(WINDOW, STRIDE)

    def forward(self, image: torch.Tensor) -> Found:
        """Returns the boxes and logits of all windows."""
        grey = -self.darkest(-image.float().unsqueeze(1) / 255).flatten(1)
        logits = torch.stack([20 * (grey - 0.75), 6 - 50 * (grey - 0.45).abs()], -1)
        return Found(self.edges.expand(image.shape[0], -1, -1), logits)


def pictures(generator: np.random.Generator, rows: int, head: Boxes = HEAD) -> Labelled:
    """Draws pictures with up to two things in them, on the left and on the right; some is glare, which is none."""
    images = generator.integers(0, 30, (rows, SIDE, SIDE)).astype(np.uint8)
    all_boxes: list[list[Any]] = []
    for image in images:
        boxes: list[Any] = []
        for half in (0, 1):
            if generator.random() < 0.3:
                continue
            label = (*LABELS, "glare")[generator.choice(3, p=(0.4, 0.4, 0.2))]
            left = half * 16 + int(generator.integers(0, 16 - OBJECT))
            top = int(generator.integers(0, SIDE - OBJECT))
            middle = {"lamp": 0.92, "wall": 0.5, "glare": 0.74}[label]
            light = np.clip(generator.normal(middle, 0.05), 0.2, 1)
            noise = generator.normal(0, 0.02, (OBJECT, OBJECT))
            image[top : top + OBJECT, left : left + OBJECT] = 255 * np.clip(light + noise, 0, 1)
            if label != "glare":
                boxes.append((label, tuple(edge / SIDE for edge in (left, top, left + OBJECT, top + OBJECT))))
        all_boxes.append(boxes)
    return Labelled({"image": images}, box_targets(all_boxes, head))


def outputs_of(images: NDArray[Any]) -> NDArray[np.float32]:
    """Returns what the network gives, side by side as one table."""
    with torch.no_grad():
        found = Detector()(torch.from_numpy(images))
    return np.concatenate([each.numpy().reshape(len(images), -1) for each in found], axis=1)
