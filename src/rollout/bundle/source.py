"""The source: what variants are made from, and what makes a module unfit to be one."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.schema import Arrays
from rollout.bundle.task import Classification, Scores, Task
from rollout.errors import BundleError

NOISE = 1e-3
# A dropout over few values may well do the same twice.
ASKED_AGAIN = 4


class Source(ABC):
    """What every variant is exported from and compared with.

    Attributes:
        task: What it answers; packing completes it.
        example: A few rows, for each field an array of shape ``(rows, *field.shape)``.
        origin: What the lineage says of what was packed.
    """

    task: Task
    example: Arrays
    origin: Mapping[str, Any] = {}

    @abstractmethod
    def outputs(self, inputs: Arrays) -> NDArray[np.float32]:
        """Returns what it gives for a batch: logits, or values, or values and spreads."""

    @abstractmethod
    def run(self, inputs: Arrays) -> Scores:
        """Scores a batch, as the variants do; see ``Variant.run``."""

    @abstractmethod
    def batch_dependent_layer(self, inputs: Arrays) -> str:
        """Names the first part of it whose output for a row depends on the other rows of the batch."""

    @abstractmethod
    def require_graph(self) -> None:
        """Refuses what should be a graph and is none, before anything is exported.

        Raises:
            BundleError: If it is none.
        """

    @abstractmethod
    def write_onnx(self, path: Path) -> None:
        """Writes it as ONNX, with the last step inside and inputs that carry the names of the fields.

        Raises:
            BundleError: If it cannot be expressed so; this variant is then left out. Also of the next two.
        """

    @abstractmethod
    def write_torchscript(self, path: Path) -> None:
        """Writes it as frozen TorchScript, with the last step inside."""

    @abstractmethod
    def write_export(self, path: Path) -> None:
        """Writes it as a package of ``torch.export``, with the last step inside."""


class ModuleSource(torch.nn.Module, Source):
    """A module as it was given, with the last step inside.

    Args:
        module: Takes one tensor per field, each of shape ``(rows, *field.shape)``; see the task for what it
            returns. It is copied.
        task: What it answers.
        example: Two or more rows, for each field an array of shape ``(rows, *field.shape)``.

    Raises:
        BundleError: If a layer is in training mode, changes its buffers when it is called or answers differently
            when it is asked twice, or the outputs do not fit the task.
    """

    def __init__(self, module: torch.nn.Module, task: Task, example: Arrays) -> None:
        super().__init__()
        _require_eval(module)
        self.module = copy.deepcopy(module).cpu()
        self.training = False
        self.has_spread = False
        self.task = task
        self.example = example
        _require_repeatable(self.module, to_tensors(example))
        outputs = self.outputs(example)
        self.has_spread = outputs.shape[1:] == (2,)
        fits = {(task.outputs,)} if isinstance(task, Classification) else {(), (1,), (2,)}
        if outputs.shape[1:] not in fits or len(outputs) != len(to_tensors(example)[0]):
            raise BundleError(
                f"the module gives outputs of shape {outputs.shape} for {len(to_tensors(example)[0])} rows; "
                f"{what_fits(task)}"
            )

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Returns scores, ``float32`` of shape ``(rows, task.outputs)``."""
        outputs = self.module(*inputs).float()
        if isinstance(self.task, Classification):
            return torch.softmax(outputs / self.task.temperature, dim=-1)
        value = outputs[:, :1] if outputs.dim() == 2 else outputs.unsqueeze(1)
        spread = outputs[:, 1:] if self.has_spread else torch.ones_like(value)
        return torch.cat([value, spread * self.task.half_width], dim=1)

    def outputs(self, inputs: Arrays) -> NDArray[np.float32]:
        """Returns what the module itself gives for a batch: logits, or values and spreads."""
        with torch.inference_mode():
            outputs: NDArray[np.float32] = self.module(*to_tensors(inputs)).float().numpy()
            return outputs

    def run(self, inputs: Arrays) -> Scores:
        """Scores a batch, as the variants do; see ``Variant.run``."""
        with torch.inference_mode():
            scores: Scores = self(*to_tensors(inputs)).numpy()
            return scores

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The module as one graph with a dynamic batch size.

        Raises:
            BundleError: If it leaves torch on the way, or depends on the number of rows.
        """
        batch = torch.export.Dim("rows")
        shapes = (tuple({0: batch} for _ in self.example),)
        try:
            return torch.export.export(self, to_tensors(self.example), dynamic_shapes=shapes)
        except Exception as error:
            raise BundleError(
                "the module is not one graph of torch operations; every step of it, preprocessing included, must "
                f"be a torch operation inside forward and take any number of rows: {first_line(error)}"
            ) from error

    def require_graph(self) -> None:
        """Captures the graph."""
        self.program  # noqa: B018  this is where a module that is not one graph is refused

    def write_onnx(self, path: Path) -> None:
        """Writes it by way of the captured graph."""
        program = torch.onnx.export(
            self.program, input_names=list(self.example), output_names=["scores"], dynamo=True, verbose=False
        )
        assert program is not None  # the exporter returns one whenever it is given no file  # noqa: S101
        program.save(path)

    def write_torchscript(self, path: Path) -> None:
        """Writes it by a trace."""
        with torch.no_grad():
            torch.jit.freeze(torch.jit.trace(self, to_tensors(self.example))).save(str(path))

    def write_export(self, path: Path) -> None:
        """Writes the captured graph."""
        torch.export.save(self.program, path)

    def batch_dependent_layer(self, inputs: Arrays) -> str:
        """Names the first layer whose output for a row depends on the other rows of the batch."""
        tensors = to_tensors(inputs)
        together = _layer_outputs(self.module, tensors)
        alone = _layer_outputs(self.module, tuple(tensor[:1] for tensor in tensors))
        for name, output in together.items():
            if output.dim() and name in alone and not _agree(output[:1], alone[name]):
                return _called(self.module, name)
        return _called(self.module, "")


def to_tensors(arrays: Mapping[str, NDArray[Any]]) -> tuple[torch.Tensor, ...]:
    """Copies the arrays of a batch to tensors, in the order of the fields."""
    return tuple(torch.tensor(np.ascontiguousarray(array)) for array in arrays.values())


def _require_eval(module: torch.nn.Module) -> None:
    training = [name for name, layer in module.named_modules() if layer.training]
    if training:
        leaf = next((name for name in training if not list(module.get_submodule(name).children())), training[0])
        raise BundleError(
            f"{_called(module, leaf)} is in training mode: call module.eval() before packing; if it stays so "
            "afterwards, the layer ignores eval()"
        )


def _require_repeatable(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    before = {name: tensor.clone() for name, tensor in _state(module).items()}
    try:
        first = _layer_outputs(module, inputs)
    except Exception as error:
        raise BundleError(f"the module cannot take its own fields: {first_line(error)}") from error
    for name, tensor in _state(module).items():
        if not _same(before[name], tensor):
            layer, _, buffer = name.rpartition(".")
            raise BundleError(
                f"{_called(module, layer)} changes its {buffer} when it is called: a prediction would depend on "
                "those before it"
            )
    again = [_layer_outputs(module, inputs) for _ in range(ASKED_AGAIN)]
    for name, output in first.items():
        if not all(_same(output, outputs[name]) for outputs in again):
            raise BundleError(
                f"{_called(module, name)} gives different answers to the same input: is there a dropout or a "
                "random number in its forward?"
            )


def _state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _layer_outputs(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """Runs the module; returns what each layer gave, innermost first, the module itself (named "") last."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str, output: object) -> None:
        if isinstance(output, torch.Tensor):
            outputs[name] = output.detach().clone()

    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output, name=name: keep(name, output))
        for name, layer in module.named_modules()
    ]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def first_line(error: Exception) -> str:
    """Returns the first line of what an exception says, or its name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.equal(first.nan_to_num(), second.nan_to_num())


def _agree(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(
        first.float(), second.float(), rtol=NOISE, atol=NOISE, equal_nan=True
    )


def _called(module: torch.nn.Module, name: str) -> str:
    kind = type(module.get_submodule(name)).__name__
    return f"layer {name} ({kind})" if name else f"the module itself ({kind})"


def what_fits(task: Task) -> str:
    """Says what outputs fit a task, in words."""
    if isinstance(task, Classification):
        return f"{task.outputs} labels need logits of shape (rows, {task.outputs})"
    return "a regression needs values of shape (rows,), or values and positive spreads of shape (rows, 2)"
