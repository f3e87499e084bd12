"""Rollout: batched inference of PyTorch models, a challenger on trial, and people where the model is unsure."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rollout.__about__ import __version__
from rollout.bundle.audio import Audio
from rollout.bundle.fields import Tensor
from rollout.bundle.image import Image
from rollout.bundle.numbers import Number, Time
from rollout.bundle.schema import InputSchema, Labelled
from rollout.bundle.table import Table
from rollout.bundle.task import Classification, Regression
from rollout.bundle.texts import Category, Text
from rollout.errors import RolloutError

if TYPE_CHECKING:
    from rollout.bundle.pack import pack
    from rollout.bundle.reference import Answered, Reference
    from rollout.training.recipe import Dataset, Recipe, Version

__all__ = [
    "Answered",
    "Audio",
    "Category",
    "Classification",
    "Dataset",
    "Image",
    "InputSchema",
    "Labelled",
    "Number",
    "Recipe",
    "Reference",
    "Regression",
    "RolloutError",
    "Table",
    "Tensor",
    "Text",
    "Time",
    "Version",
    "__version__",
    "pack",
]

# Packing and training need torch, which serving does not: these are imported when they are asked for.
_NEED_TORCH = {
    "Answered": "rollout.bundle.reference",
    "Dataset": "rollout.training.recipe",
    "Recipe": "rollout.training.recipe",
    "Reference": "rollout.bundle.reference",
    "Version": "rollout.training.recipe",
    "pack": "rollout.bundle.pack",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        return getattr(importlib.import_module(_NEED_TORCH[name]), name)
    raise AttributeError(f"module 'rollout' has no attribute {name!r}")
