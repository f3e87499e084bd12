"""A small model of images that are files, and its author's own pipeline, for the tests of references."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import nn

from rollout import Answered, Classification, Image, Labelled, Reference, pack
from rollout.bundle.manifest import Manifest
from rollout.bundle.reference import Compared, compare_reference
from rollout.bundle.schema import InputSchema
from rollout.bundle.source import ModuleSource

SIDE = 16
FIELD = Image(height=SIDE, width=SIDE)
TASK = Classification(labels=["smooth", "rough"])
Answer = Callable[[Mapping[str, Any]], Any]


class Scale(nn.Module):
    """Scales pixels from 0…255 to -1…1."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns ``float32``."""
        return image.float() / 127.5 - 1


class Texture(nn.Module):
    """Says whether an image is rough: which resize filter made it decides."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        return self.decide(self.scale(image))

    def decide(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns logits of scaled pixels."""
        varies = (pixels - pixels.mean((1, 2), keepdim=True)).square().mean((1, 2)) * 20 - 2
        return torch.stack([-varies, varies], 1)


def part(rows: int, seed: int) -> Labelled:
    """Draws images, and says what they are."""
    chance = np.random.default_rng(seed)
    width = np.where(np.arange(rows) % 2, 120, 20)[:, None, None]
    images = (127 + width * chance.uniform(-1, 1, (rows, SIDE, SIDE))).astype(np.uint8)
    return Labelled({"image": images}, Texture()(torch.from_numpy(images)).argmax(1).numpy())


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Returns an image as a file."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def files(rows: int = 12) -> list[dict[str, Any]]:
    """Returns images of another size than the model takes, half of them coloured."""
    chance = np.random.default_rng(3)
    return [
        {"image": png(chance.integers(0, 256, (40, 36, 3) if row % 2 else (40, 36), dtype=np.uint8))}
        for row in range(rows)
    ]


def pixels(
    raw: Mapping[str, Any], resample: PIL.Image.Resampling = PIL.Image.Resampling.BOX
) -> NDArray[np.uint8]:
    """Decodes a file as the author does."""
    image = PIL.Image.open(io.BytesIO(raw["image"])).convert("L")
    return np.array(image.resize((SIDE, SIDE), resample))


def answer(raw: Mapping[str, Any]) -> Answered:
    """The author's own pipeline."""
    image = pixels(raw)
    scaled = (image / 255 - 0.5) / 0.5
    logits = Texture().decide(torch.from_numpy(scaled.astype(np.float32))[None])
    return Answered(logits, {"image": image, "scale": scaled}, TASK.labels[int(logits.argmax())])


def compare(answer: Answer = answer, rows: Any = None, **changes: Any) -> Compared:
    """Compares the model with a reference."""
    field = changes.pop("field", FIELD)
    source = ModuleSource(changes.pop("module", Texture().eval()), TASK, {"image": part(2, 0).inputs["image"]})
    reference = Reference(files() if rows is None else rows, answer, **changes)
    return compare_reference(reference, InputSchema({"image": field}), source, "seen:v0")


def pack_seen(version: str, **changes: Any) -> Manifest:
    """Packs ``seen:version``, which agrees with the author's own pipeline."""
    arguments: dict[str, Any] = {
        "name": "seen",
        "version": version,
        "inputs": {"image": FIELD},
        "task": TASK,
        "calibration": part(400, 1),
        "evaluation": part(100, 2),
        "reference": Reference(files(), answer),
    }
    return pack(Texture().eval(), **(arguments | changes))
