"""Rollout: batched inference of PyTorch models, a challenger on trial, and people where the model is unsure."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rollout.__about__ import __version__

if TYPE_CHECKING:
    from rollout.bundle.audio import Audio
    from rollout.bundle.fields import Tensor
    from rollout.bundle.image import Image
    from rollout.bundle.numbers import Number, Time
    from rollout.bundle.pack import pack
    from rollout.bundle.reference import Answered, Reference
    from rollout.bundle.schema import InputSchema, Labelled
    from rollout.bundle.table import Table
    from rollout.bundle.task import Classification, Regression
    from rollout.bundle.texts import Category, Text
    from rollout.errors import RolloutError
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

# Imported when they are asked for: packing and training need torch, which serving does not, and a command that
# changes a split needs neither of them.
_MODULES = {
    "Answered": "bundle.reference",
    "Audio": "bundle.audio",
    "Category": "bundle.texts",
    "Classification": "bundle.task",
    "Dataset": "training.recipe",
    "Image": "bundle.image",
    "InputSchema": "bundle.schema",
    "Labelled": "bundle.schema",
    "Number": "bundle.numbers",
    "Recipe": "training.recipe",
    "Reference": "bundle.reference",
    "Regression": "bundle.task",
    "RolloutError": "errors",
    "Table": "bundle.table",
    "Tensor": "bundle.fields",
    "Text": "bundle.texts",
    "Time": "bundle.numbers",
    "Version": "training.recipe",
    "pack": "bundle.pack",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"rollout.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'rollout' has no attribute {name!r}")
