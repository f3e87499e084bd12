"""The source: what variants are made from, and a module as one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.attention import fast_path_difference, plain_attention
from rollout.bundle.capture import capture, trace
from rollout.bundle.columns import LEAST_WIDTH, NO_WIDTHS, arguments, is_ragged, stacked
from rollout.bundle.faults import (
    batch_dependent_layer,
    padding_dependent_layer,
    require_eval,
    require_repeatable,
)
from rollout.bundle.fields import Field
from rollout.bundle.module import (
    LastStep,
    as_table,
    first_line,
    named_layers,
    own_copy,
    require_signature,
    tensors_of,
)
from rollout.bundle.parity import count, take
from rollout.bundle.schema import Arrays
from rollout.bundle.variants import Precision
from rollout.errors import BundleError
from rollout.heads import Head, Scores
from rollout.heads.parts import Shape, leaves, named

NO_FIELDS: Mapping[str, Field] = {}
# The first in which the former exporter writes all that recurrent layers need.
LOOPS_OPSET = 20


class Source(ABC):
    """What every variant is exported from and compared with.

    Attributes:
        task: What it answers; packing completes it.
        example: A few rows, for each field an array of shape ``(rows, *field.shape)``, or a ragged column.
        given: Shapes of the tensors that the module or the artefact itself gives for one row; see ``to_outputs``.
        origin: What the lineage says of what was packed.
    """

    task: Head
    example: Arrays
    given: Sequence[Shape]
    origin: Mapping[str, Any] = {}

    @abstractmethod
    def outputs(self, inputs: Arrays) -> NDArray[np.float32]:
        """Returns what it gives for a batch, the outputs of the head, shape ``(rows, task.width)``."""

    @property
    def output_shape(self) -> Shape:
        """The shape of what it gives itself for one row; of several tensors, all numbers in a row."""
        return self.given[0] if len(self.given) == 1 else (sum(map(math.prod, self.given)),)

    def to_outputs(self, given: NDArray[np.float32]) -> NDArray[np.float32]:
        """Makes outputs of what the module or the artefact itself gives, shape ``(rows, *output_shape)``.

        A single number may stand for several columns there, and an artefact may give probabilities.
        """
        ends = np.cumsum([math.prod(shape) for shape in self.given])[:-1]
        tensors = np.split(given.reshape(len(given), -1), ends, axis=1)
        parts = zip(tensors, self.given, leaves(self.task.parts), strict=True)
        columns = [part.columns(tensor.reshape(-1, *shape)) for tensor, shape, part in parts]
        return np.concatenate(columns, axis=1)

    @abstractmethod
    def scores(self, outputs: NDArray[np.float32]) -> Scores:
        """Makes scores of outputs, shape ``(rows, task.outputs)``."""

    def run(self, inputs: Arrays) -> Scores:
        """Scores a batch, as the variants do; see ``Variant.run``."""
        return self.scores(self.outputs(inputs))

    def precise(self, inputs: Arrays) -> NDArray[Any]:
        """Scores a batch in double precision.

        Raises:
            NotImplementedError: If it has only the precision that it was written in.
        """
        raise NotImplementedError

    @abstractmethod
    def batch_dependent_layer(self, inputs: Arrays) -> str:
        """Names the first part of it whose output for a row depends on the other rows of the batch."""

    @abstractmethod
    def padding_dependent_layer(self, inputs: Arrays, least: Mapping[str, int]) -> str | None:
        """Names the first part of it that answers otherwise when rows are padded further, if it does itself.

        Args:
            inputs: Rows.
            least: For each ragged column the steps to pad to.
        """

    def fast_path_difference(self, inputs: Arrays, scores: Scores) -> str:
        """Says by how much a module answers these rows otherwise where PyTorch takes its fast path of attention.

        Args:
            inputs: Rows.
            scores: What ``run`` gives for them.
        """
        return ""

    def layer_names(self) -> list[str]:
        """Names the layers whose outputs can be had; none unless it is a module."""
        return []

    def layer_outputs(self, inputs: Arrays, names: Sequence[str]) -> Arrays:
        """Returns what named layers give for each row, in the order in which they are run.

        Raises:
            BundleError: If one does not give a tensor, or is not run once a call.
        """
        return {}

    @property
    def constants(self) -> frozenset[str]:
        """What its graphs call the numbers in it that nobody trained."""
        return frozenset()

    @abstractmethod
    def write_onnx(self, path: Path) -> None:
        """Writes it as ONNX, with the last step inside and inputs that carry the names of the fields.

        Raises:
            BundleError: If it cannot be expressed so; this variant is then left out. Also of the next two.
        """

    @abstractmethod
    def write_torchscript(self, path: Path, precision: Precision = "float32") -> None:
        """Writes it as frozen TorchScript, with the last step inside."""

    @abstractmethod
    def write_export(self, path: Path) -> None:
        """Writes it as a package of ``torch.export``, with the last step inside."""


class ModuleSource(torch.nn.Module, Source):
    """A module as it was given, with the last step inside.

    Args:
        module: Takes one tensor per field, each of shape ``(rows, *field.shape)``, and after that of a free one
            the lengths of its rows; see the task for what it returns. It is copied.
        task: What it answers.
        example: Two or more rows, for each field an array of shape ``(rows, *field.shape)``, or a ragged column.
        fields: The input schema, where a field has a free dimension.

    Raises:
        BundleError: If the module cannot be copied or takes other arguments than the fields, a layer is in
            training mode, changes its input or its buffers when it is called or answers differently when it is
            asked twice, or the outputs do not fit the task.
    """

    def __init__(
        self, module: torch.nn.Module, task: Head, example: Arrays, fields: Mapping[str, Field] = NO_FIELDS
    ) -> None:
        super().__init__()
        self._fields = fields
        self.module = own_copy(module)
        self.training = False
        self.task = task
        self.example = example
        require_eval(self.module)
        require_signature(self.module, list(arguments(example)))
        tensors = to_tensors(example)
        with plain_attention():
            require_repeatable(self.module, tensors, task)
        with torch.inference_mode(), plain_attention():
            given = tensors_of(self.module(*tensors), task)
        for (name, part), tensor in zip(named(task.parts), given, strict=True):
            shape = tuple(tensor.shape)
            if not part.fits(shape[1:]) or shape[:1] != (len(tensors[0]),):
                of = f" for {name}" if name else ""
                raise BundleError(
                    f"the module gives outputs of shape {shape}{of} for {len(tensors[0])} rows; {task.needs}"
                )
        self.given = [tuple(tensor.shape[1:]) for tensor in given]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Returns scores, ``float32`` of shape ``(rows, task.outputs)``."""
        scores: torch.Tensor = self.last_step(self._answer(*inputs))
        return scores

    @property
    def task(self) -> Head:
        """What it answers."""
        return self._head

    @task.setter
    def task(self, head: Head) -> None:
        self._head = head
        self.last_step = LastStep(head.last_step)

    def _answer(self, *inputs: torch.Tensor) -> torch.Tensor:
        head = self._head
        return as_table(tensors_of(self.module(*inputs), head), head.parts)

    def outputs(self, inputs: Arrays) -> NDArray[np.float32]:
        """Returns what the module gives for a batch, shape ``(rows, task.width)``."""
        with torch.inference_mode(), plain_attention():
            outputs: NDArray[np.float32] = self._answer(*to_tensors(inputs)).numpy()
            return outputs

    def scores(self, outputs: NDArray[np.float32]) -> Scores:
        """Applies the last step."""
        with torch.inference_mode():
            scores: Scores = self.last_step(torch.tensor(outputs)).numpy()
            return scores

    def precise(self, inputs: Arrays) -> NDArray[Any]:
        """Scores a batch in double precision, whatever precision its code asks for."""
        from rollout.bundle.precision import InDouble  # noqa: PLC0415  which compares sources

        with torch.inference_mode(), plain_attention(), InDouble():
            return np.asarray(self(*to_tensors(inputs)).numpy())

    def program(self) -> torch.export.ExportedProgram:
        """The module as one graph with a dynamic batch size.

        Raises:
            BundleError: If it leaves torch on the way, or depends on values or on the number of rows.
        """
        captured = self._captured
        if isinstance(captured, BundleError):
            raise captured
        return captured

    @cached_property
    def _captured(self) -> torch.export.ExportedProgram | BundleError:
        try:
            with plain_attention():
                shapes = self._dynamic_shapes()
                return capture(self, to_tensors(self.example), shapes, is_looped=self._is_looped)
        except BundleError as error:
            return error

    def traced(self) -> Any:
        """Traces the module to TorchScript.

        Raises:
            BundleError: If the trace would hold for the example alone.
        """
        program = self._captured
        with plain_attention():
            return trace(self, to_tensors(self.example), None if isinstance(program, BundleError) else program)

    def write_onnx(self, path: Path) -> None:
        """Writes it by way of the captured graph, of which the newer exporter takes all but loops."""
        from rollout.bundle.exporter import to_onnx  # noqa: PLC0415  what it imports takes seconds

        if self._is_looped:
            self._write_loops(path)
        else:
            to_onnx(self.program(), list(arguments(self.example))).save(path)

    def _write_loops(self, path: Path) -> None:
        self.traced()  # or what the exporter traces itself would not hold either
        try:
            self.write_former_onnx(self, path, LOOPS_OPSET)
        except Exception as error:
            raise BundleError(
                f"its recurrent layer cannot be written: {first_line(error)}; where it gets a packed sequence, "
                "unpack what it gives with pad_packed_sequence, and read the states there"
            ) from error

    def write_former_onnx(self, module: Any, path: Path, opset: int | None = None) -> None:
        """Writes a module, or a trace of it, by PyTorch's former exporter.

        Args:
            module: It.
            path: Where to.
            opset: Version of the operators; the exporter's own unless it is said.
        """
        names = list(arguments(self.example))
        axes = [{at: size.__name__ for at, size in sizes.items()} for sizes in self._dynamic_shapes()]
        with torch.no_grad(), plain_attention():
            torch.onnx.export(
                module,
                to_tensors(self.example),
                str(path),
                input_names=names,
                output_names=["scores"],
                dynamic_axes={**dict(zip(names, axes, strict=True)), "scores": {0: "rows"}},
                opset_version=opset,
                dynamo=False,
            )

    def write_torchscript(self, path: Path, precision: Precision = "float32") -> None:
        """Writes it by a trace, which holds what autocast does."""
        is_less = precision != "float32"
        dtype = getattr(torch, precision) if is_less else None
        # Without its cache: a weight that was cast for one trace is no constant of the next.
        with torch.autocast("cpu", dtype, enabled=is_less, cache_enabled=False):
            traced = self.traced()
        torch.jit.freeze(traced).save(str(path))

    def write_export(self, path: Path) -> None:
        """Writes the captured graph."""
        torch.export.save(self.program(), path)

    def batch_dependent_layer(self, inputs: Arrays) -> str:
        """Names the first layer whose output for the first row depends on the other rows of the batch."""
        with plain_attention():
            return batch_dependent_layer(self.module, to_tensors(inputs))

    def padding_dependent_layer(self, inputs: Arrays, least: Mapping[str, int]) -> str | None:
        """Names the first layer that answers otherwise when rows are padded further, if the module does."""
        with plain_attention():
            return padding_dependent_layer(self.module, to_tensors(inputs), to_tensors(inputs, least))

    def fast_path_difference(self, inputs: Arrays, scores: Scores) -> str:
        """Scores the rows again with the fast path."""
        return fast_path_difference(
            self.module, self.task, lambda batch: self(*to_tensors(batch)).numpy(), inputs, scores
        )

    def layer_names(self) -> list[str]:
        """Names the layers that are in Python."""
        return [name for name in named_layers(self.module) if name]

    def layer_outputs(self, inputs: Arrays, names: Sequence[str]) -> Arrays:
        """Returns what named layers give for each row, in the order in which they are run."""
        found: dict[str, list[NDArray[Any]]] = {}

        def keep(name: str, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) and output else output
            if not isinstance(first, torch.Tensor):
                raise BundleError(
                    f"layer {name} gives a {type(first).__name__}; a stage is compared with a tensor"
                )
            array = first.detach().float().numpy()
            found.setdefault(name, []).append(array[0] if array.ndim and len(array) == 1 else array)

        layers, rows = named_layers(self.module), count(inputs)
        hooks = [
            layers[name].register_forward_hook(lambda _layer, _inputs, output, name=name: keep(name, output))
            for name in names
        ]
        try:
            with torch.no_grad(), plain_attention():
                for at in range(rows):  # one at a time, whatever a layer makes of the batch's dimension
                    self.module(*to_tensors(take(inputs, slice(at, at + 1))))
        finally:
            for hook in hooks:
                hook.remove()
        if other := next((name for name in names if len(found.get(name, [])) != rows), None):
            raise BundleError(f"layer {other} is not run once a call: no stage can be compared with it")
        return {name: stacked(outputs) for name, outputs in found.items()}

    @property
    def constants(self) -> frozenset[str]:
        """What its graphs call the buffers of the module."""
        return frozenset(f"module.{name}" for name, _ in self.module.named_buffers())

    @property
    def _is_looped(self) -> bool:
        """Whether a recurrent layer goes over rows of any length, for which its graph needs a loop."""
        has_layer = any(isinstance(layer, torch.nn.RNNBase) for layer in self.module.modules())
        return has_layer and any(map(is_ragged, self.example.values()))

    def _dynamic_shapes(self) -> list[dict[int, Any]]:
        """Says which dimensions of each argument may have any size: the rows, and those of free lengths."""
        rows = torch.export.Dim("rows")
        dimensions: dict[str, Any] = {}
        shapes: list[dict[int, Any]] = []
        for name, column in self.example.items():
            shapes.append({0: rows})
            if free := self._fields[name].free if is_ragged(column) else None:
                own = free.name if free.is_shared else f"{name}_{free.name}"
                bounded = torch.export.Dim(own, min=LEAST_WIDTH, max=free.longest)
                shapes[-1][1] = dimensions.setdefault(own, bounded)
                shapes.append({0: rows})
        return shapes


def to_tensors(
    arrays: Mapping[str, NDArray[Any]], least: Mapping[str, int] = NO_WIDTHS
) -> tuple[torch.Tensor, ...]:
    """Copies the columns of a batch to tensors, in the order of the module's arguments; see ``arguments``."""
    given = arguments(arrays, least)
    return tuple(torch.tensor(np.ascontiguousarray(array)) for array in given.values())
