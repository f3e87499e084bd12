"""Exporting a module: one function a variant, in one table. This is the only part that needs torch."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.runtimes import Scores
from rollout.bundle.schema import Arrays
from rollout.errors import BundleError


class Scorer(torch.nn.Module):
    """A module with its last step inside: logits of shape ``(rows, classes)`` become scores that sum to 1.

    Args:
        module: Takes one tensor per field and returns logits. A copy is put in eval mode.

    Raises:
        BundleError: If a layer stays in training mode.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).cpu()
        self.eval()
        for name, layer in self.module.named_modules():
            if layer.training:
                raise BundleError(f"layer {name or 'the module itself'} stays in training mode after eval()")

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Returns ``float32`` scores of shape ``(rows, classes)``."""
        return torch.softmax(self.module(*inputs).float(), dim=-1)

    def run(self, inputs: Arrays) -> Scores:
        """Scores a batch, as the exported variants do; see ``Runtime.run``."""
        with torch.inference_mode():
            scores: Scores = self(*to_tensors(inputs)).numpy()
            return scores


def to_tensors(arrays: Mapping[str, NDArray[Any]]) -> tuple[torch.Tensor, ...]:
    """Copies the arrays of a batch to tensors, in the order of the fields."""
    return tuple(torch.tensor(np.ascontiguousarray(array)) for array in arrays.values())


def export_onnx(scorer: Scorer, example: Arrays, path: Path) -> None:
    """Writes the graph as ONNX with a dynamic batch size; the inputs carry the names of the fields."""
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        scorer,
        to_tensors(example),
        input_names=list(example),
        output_names=["scores"],
        dynamic_shapes=(tuple({0: batch} for _ in example),),
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # the exporter returns one whenever it is given no file  # noqa: S101
    program.save(path)


def export_torchscript(scorer: Scorer, example: Arrays, path: Path) -> None:
    """Writes the graph as frozen TorchScript, for callers in C++."""
    with torch.no_grad():
        traced = torch.jit.trace(scorer, to_tensors(example))
        torch.jit.freeze(traced).save(str(path))


EXPORTERS: dict[str, tuple[str, Callable[[Scorer, Arrays, Path], None]]] = {
    "onnx": ("onnx/model.onnx", export_onnx),
    "torchscript": ("torchscript/model.pt", export_torchscript),
}


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Hides what torch's exporters say about themselves: deprecations, and that torchvision is absent."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        try:
            yield
        finally:
            logger.setLevel(level)
