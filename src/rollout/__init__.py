"""Rollout: batched inference of PyTorch models, a challenger on trial, and people where the model is unsure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rollout.__about__ import __version__
from rollout.bundle.fields import Image, Tensor
from rollout.bundle.schema import InputSchema
from rollout.errors import RolloutError

if TYPE_CHECKING:
    from rollout.bundle.pack import Labelled, pack

__all__ = ["Image", "InputSchema", "Labelled", "RolloutError", "Tensor", "__version__", "pack"]


def __getattr__(name: str) -> Any:
    # Packing needs torch, which serving does not: it is imported when it is asked for.
    if name in ("Labelled", "pack"):
        from rollout.bundle import pack as packing  # noqa: PLC0415

        return getattr(packing, name)
    raise AttributeError(f"module 'rollout' has no attribute {name!r}")
