"""PyTorch's exporter to ONNX, with a table of operators that is made once a process.

``torch.onnx.export`` makes it anew for each module, by parsing the source of each operator: longer than a small
module takes. What is called here is what it calls itself, which torch's version in pyproject.toml fixes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch.onnx import ONNXProgram
from torch.onnx._constants import ONNX_DEFAULT_OPSET
from torch.onnx._internal.exporter._core import export
from torch.onnx._internal.exporter._registration import ONNXRegistry


def to_onnx(program: torch.export.ExportedProgram, inputs: Sequence[str]) -> ONNXProgram:
    """Makes an ONNX graph of a captured module, as ``torch.onnx.export`` does.

    Args:
        program: The module; it gives ``scores``.
        inputs: What its inputs are called.
    """
    return export(
        program,
        registry=_operators(),
        input_names=inputs,
        output_names=["scores"],
        verbose=False,
        opset_version=ONNX_DEFAULT_OPSET,
    )


@cache
def _operators() -> ONNXRegistry:
    return ONNXRegistry.from_torchlib(ONNX_DEFAULT_OPSET)
