"""A model that learns from reviewed labels and trains in no time, and rows as the review queue exports them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from rollout import Classification, Dataset, Labelled, Recipe, Tensor, Version
from rollout.training.labels import WHY
from tests.bundle.two import Linear

NONE = dict.fromkeys(WHY, 0)


def part(rows: int, seed: int) -> Labelled:
    x = np.random.default_rng(seed).normal(size=(rows, 2)).astype(np.float32)
    return Labelled({"x": x}, (x.sum(1) > 0).astype(int))


def load() -> Dataset:
    return Dataset(part(60, 1), part(500, 2), part(300, 3), "drawn", "by seed")


def train(part: Labelled, seed: int) -> torch.nn.Module:
    """Its weights tell how many rows it learnt from."""
    return Linear(1 + len(part.targets) / 1e4, 1 + 1e-4 * seed).eval()


YES_OR_NO = Classification(labels=["no", "yes"], risk=0.1)
RECIPE = Recipe(
    name="sums",
    inputs={"x": Tensor(shape=(2,))},
    load=load,
    versions={
        "plain": Version(train, YES_OR_NO, {}),
        "taught": Version(train, YES_OR_NO, {}, needs_labels=True),
        "taught again": Version(train, YES_OR_NO, {}, needs_labels=True),
    },
)
cursors = itertools.count(1_764_000_000_000_000)


def row(key: str, x: Any = (0.5, 0.25), label: str | None = "yes", **fields: Any) -> dict[str, Any]:
    """A row as the review queue exports it."""
    return {
        "id": f"id-of-{key}",
        "model": "sums",
        "client_id": "c-42",
        "key": key,
        "inputs": None if x is None else {"x": x},
        "label": label,
        "value": None,
        "retracted": False,
        "reviewers": ["ann"],
        "agreement": 1.0,
        "reason": "low_confidence",
        "pi": 1.0,
        "predicted": {"label": "no", "confidence": 0.5, "scores": {"no": 0.5, "yes": 0.5}},
        "outcome": None,
        "linked_to": None,
        "cursor": next(cursors),
    } | fields


def retraction(of: dict[str, Any]) -> dict[str, Any]:
    return of | {"label": None, "retracted": True, "cursor": next(cursors)}


def write(file: Path, *rows: Mapping[str, Any]) -> Path:
    file.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in rows))
    return file
