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
    from rollout.bundle.texts import Category, Text
    from rollout.errors import RolloutError
    from rollout.heads import (
        Boxes,
        Classification,
        Embedding,
        Heads,
        MultiLabel,
        Output,
        Quantiles,
        Regression,
        Score,
        Span,
        Targets,
        Tensors,
        TokenLabels,
        Truth,
        box_targets,
        targets_of,
    )
    from rollout.training.fit import Fit
    from rollout.training.recipe import Dataset, Recipe, Version

__all__ = [
    "Answered",
    "Audio",
    "Boxes",
    "Category",
    "Classification",
    "Dataset",
    "Embedding",
    "Fit",
    "Heads",
    "Image",
    "InputSchema",
    "Labelled",
    "MultiLabel",
    "Number",
    "Output",
    "Quantiles",
    "Recipe",
    "Reference",
    "Regression",
    "RolloutError",
    "Score",
    "Span",
    "Table",
    "Targets",
    "Tensor",
    "Tensors",
    "Text",
    "Time",
    "TokenLabels",
    "Truth",
    "Version",
    "__version__",
    "box_targets",
    "pack",
    "targets_of",
]

# Imported when they are asked for: packing and training need torch, which serving does not, and a command that
# changes a split needs neither of them.
_MODULES = {
    "Answered": "bundle.reference",
    "Audio": "bundle.audio",
    "Boxes": "heads",
    "Category": "bundle.texts",
    "Classification": "heads",
    "Dataset": "training.recipe",
    "Embedding": "heads",
    "Fit": "training.fit",
    "Heads": "heads",
    "Image": "bundle.image",
    "InputSchema": "bundle.schema",
    "Labelled": "bundle.schema",
    "MultiLabel": "heads",
    "Number": "bundle.numbers",
    "Output": "heads",
    "Quantiles": "heads",
    "Recipe": "training.recipe",
    "Reference": "bundle.reference",
    "Regression": "heads",
    "RolloutError": "errors",
    "Score": "heads",
    "Span": "heads",
    "Table": "bundle.table",
    "Targets": "heads",
    "Tensor": "bundle.fields",
    "Tensors": "heads",
    "Text": "bundle.texts",
    "Time": "bundle.numbers",
    "TokenLabels": "heads",
    "Truth": "heads",
    "Version": "training.recipe",
    "box_targets": "heads",
    "pack": "bundle.pack",
    "targets_of": "heads",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"rollout.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'rollout' has no attribute {name!r}")
