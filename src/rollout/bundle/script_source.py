"""Sources that came as files of PyTorch: TorchScript, and programs of ``torch.export``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rollout.bundle.attention import plain_attention
from rollout.bundle.fields import Field
from rollout.bundle.schema import Arrays
from rollout.bundle.source import NO_FIELDS, ModuleSource, to_tensors
from rollout.errors import BundleError
from rollout.heads import Head


class ScriptSource(ModuleSource):
    """A module in TorchScript. ``torch.export`` takes none; ONNX is written by way of a trace."""

    def write_onnx(self, path: Path) -> None:
        """Writes it by PyTorch's former exporter, the only one that takes TorchScript."""
        with torch.no_grad(), plain_attention():
            traced = torch.jit.trace(self, to_tensors(self.example))
        self.write_former_onnx(traced, path)


class ExportedSource(ModuleSource):
    """A program of ``torch.export``, whose module is one of PyTorch.

    Args:
        program: The program; its one user of parameters is ``forward``.
        task: What it answers.
        example: Two rows.
        fields: The input schema, where a field has a free dimension.

    Raises:
        BundleError: If it takes a fixed number of rows, or as for a module.
    """

    def __init__(
        self,
        program: torch.export.ExportedProgram,
        task: Head,
        example: Arrays,
        fields: Mapping[str, Field] = NO_FIELDS,
    ) -> None:
        _require_dynamic_rows(program)
        super().__init__(Exported(program), task, example, fields)


class Exported(torch.nn.Module):
    """The module of a program, which has no modes: what it does is fixed."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.program = program.module()
        for layer in self.modules():
            layer.training = False

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Runs it."""
        return self.program(*inputs)


def _require_dynamic_rows(program: torch.export.ExportedProgram) -> None:
    names = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in names:
            continue
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and (not value.dim() or isinstance(value.shape[0], int)):
            rows = f"{value.shape[0]} rows" if value.dim() else "no rows"
            raise BundleError(
                f"the program takes {rows} of {node.name} and no other number: export it with a dynamic first "
                'dimension, torch.export.export(module, example, dynamic_shapes=({0: torch.export.Dim("rows")},))'
            )
