"""The reference: from the file of a scan to an answer with Pillow and numpy, as if there were no bundle."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from rollout import Answered, Dataset, Reference

ROWS = 48
SIDE = 32


def from_files(module: torch.nn.Module, dataset: Dataset) -> Reference:
    """Returns scans of the evaluation part as PNG files of several sizes, and their way to the logits."""
    grids = _to_cells(dataset.train.inputs["image"])
    mean, deviation = grids.mean(0), grids.std(0, ddof=1)
    deviation[deviation <= 0.01] = 1.0

    def answer(raw: Mapping[str, Any]) -> Answered:
        scan = PIL.Image.open(io.BytesIO(raw["image"])).convert("L")
        pixels = np.asarray(scan.resize((SIDE, SIDE), PIL.Image.Resampling.BOX))
        cells = ((_to_cells(pixels[None]) - mean) / deviation).astype(np.float32)
        logits = module.classify(torch.from_numpy(cells))  # type: ignore[operator]
        return Answered(logits, {"image": pixels, "standardise": cells}, label=str(int(logits.argmax())))

    images = dataset.evaluation.inputs["image"]
    chosen = images[np.linspace(0, len(images) - 1, ROWS).astype(int)]
    return Reference([{"image": _to_file(pixels, number)} for number, pixels in enumerate(chosen)], answer)


def _to_cells(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns the brightness of each 4×4 block, 0 to 1, shape ``(rows, 8, 8)``."""
    blocks = images.reshape(len(images), 8, 4, 8, 4).astype(np.float64)
    cells: NDArray[np.float64] = blocks.mean((2, 4)) / 255
    return cells


def _to_file(pixels: NDArray[np.uint8], number: int) -> bytes:
    """Saves a scan as a PNG: as it is, as the 8×8 grid of the data set, enlarged, or as a photo in colour."""
    scan = PIL.Image.fromarray(pixels)
    scans = [
        scan,
        scan.reduce(4),
        scan.resize((100, 100), PIL.Image.Resampling.BICUBIC),
        scan.convert("RGB").resize((45, 37), PIL.Image.Resampling.BILINEAR),
    ]
    file = io.BytesIO()
    scans[number % len(scans)].save(file, "PNG")
    return file.getvalue()
