"""The source: a module as it was given, with the last step inside, and what makes it unfit to be packed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export._patches import register_gru_while_loop_decomposition, register_lstm_while_loop_decomposition

from rollout.bundle.columns import LEAST_WIDTH, NO_WIDTHS, arguments, is_ragged, sizes, widths
from rollout.bundle.fields import Field
from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays
from rollout.bundle.task import Classification, Scores, Task
from rollout.errors import BundleError

NOISE = 1e-3
NO_FIELDS: Mapping[str, Field] = {}
# A dropout over few values may well do the same twice.
ASKED_AGAIN = 4
PADDED_ROWS = 8


class Source(torch.nn.Module):
    """What every variant is exported from and compared with.

    Args:
        module: Takes one tensor per field, each of shape ``(rows, *field.shape)``, and after that of a free one
            the lengths of its rows; see the task for what it returns. It is copied.
        task: What it answers.
        example: Two or more rows, for each field an array of shape ``(rows, *field.shape)``, or a ragged column.
        fields: The input schema, where a field has a free dimension.

    Raises:
        BundleError: If a layer is in training mode, changes its buffers when it is called or answers differently
            when it is asked twice, or the outputs do not fit the task.
    """

    def __init__(
        self, module: torch.nn.Module, task: Task, example: Arrays, fields: Mapping[str, Field] = NO_FIELDS
    ) -> None:
        super().__init__()
        _require_eval(module)
        self.module = copy.deepcopy(module).cpu()
        self.training = False
        self.has_spread = False
        self.task = task
        self.example = example
        self._fields = fields
        _require_repeatable(self.module, to_tensors(example))
        outputs = self.outputs(example)
        self.has_spread = outputs.shape[1:] == (2,)
        fits = {(task.outputs,)} if isinstance(task, Classification) else {(), (1,), (2,)}
        if outputs.shape[1:] not in fits or len(outputs) != len(to_tensors(example)[0]):
            raise BundleError(
                f"the module gives outputs of shape {outputs.shape} for {len(to_tensors(example)[0])} rows; "
                f"{_what_fits(task)}"
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
        shapes = self._dynamic_shapes()
        try:
            with _loops() if self.is_looped else nullcontext():
                return torch.export.export(self, to_tensors(self.example), dynamic_shapes=shapes)
        except Exception as error:
            free = dict.fromkeys(field.free.name for field in self._fields.values() if field.free)
            raise BundleError(
                "the module is not one graph of torch operations; every step of it, preprocessing included, must "
                f"be a torch operation inside forward and take any number of {' and of '.join(['rows', *free])}: "
                f"{first_line(error)}"
            ) from error

    @property
    def is_looped(self) -> bool:
        """Whether a recurrent layer goes over rows of any length, for which its graph needs a loop."""
        has_layer = any(isinstance(layer, torch.nn.GRU | torch.nn.LSTM) for layer in self.module.modules())
        return has_layer and any(map(is_ragged, self.example.values()))

    def _dynamic_shapes(self) -> tuple[tuple[dict[int, Any], ...]]:
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
        return (tuple(shapes),)

    def batch_dependent_layer(self, inputs: Arrays) -> str:
        """Names the first layer whose output for a row depends on the other rows of the batch."""
        tensors = to_tensors(inputs)
        together = _layer_outputs(self.module, tensors)
        alone = _layer_outputs(self.module, tuple(tensor[:1] for tensor in tensors))
        for name, output in together.items():
            if output.dim() and name in alone and not _agree(output[:1], alone[name]):
                return _called(self.module, name)
        return _called(self.module, "")

    def require_masks(self, inputs: Arrays) -> None:
        """Pads rows of all lengths by a step, as beside a slightly longer row, and as far as their field allows.

        Args:
            inputs: Rows to choose from; without free lengths there is nothing to do.

        Raises:
            BundleError: If an answer changes; the sentence names the first layer whose output does.
        """
        order = np.argsort(sizes(inputs).sum(1), kind="stable")
        longest = {name: field.free.longest for name, field in self._fields.items() if field.free}
        for row in order[np.unique(np.linspace(0, len(order) - 1, PADDED_ROWS).astype(int))] if longest else ():
            alone = take(inputs, slice(row, row + 1))
            slightly = {name: min(width + 1, longest[name]) for name, width in widths(alone).items()}
            named = (self._padding_dependent_layer(alone, least) for least in (slightly, longest))
            layer = next(filter(None, named), None)
            if layer is not None:
                raise BundleError(
                    f"{layer} answers for a row according to how far it is padded: a prediction would depend on "
                    "other callers. Let forward use the lengths that it gets: as a mask, or to pick the last "
                    "step of each row"
                )

    def _padding_dependent_layer(self, inputs: Arrays, least: Mapping[str, int]) -> str | None:
        """Names the first layer that answers otherwise when rows are padded further, if the module does.

        Of what a layer gives for each step, only those are compared that are there without the further padding.
        """
        near, far = (_layer_outputs(self.module, to_tensors(inputs, wanted)) for wanted in (NO_WIDTHS, least))
        if _agree(near[""], far[""]):
            return None
        for name, output in near.items():
            if name in far and not _agree(output, _corner(far[name], output)):
                return _called(self.module, name)
        return _called(self.module, "")


@contextmanager
def _loops() -> Iterator[None]:
    with (
        warnings.catch_warnings(action="ignore"),  # of what a layer keeps of its weights, while it is looked at
        register_gru_while_loop_decomposition(),
        register_lstm_while_loop_decomposition(),
    ):
        yield


def to_tensors(
    arrays: Mapping[str, NDArray[Any]], least: Mapping[str, int] = NO_WIDTHS
) -> tuple[torch.Tensor, ...]:
    """Copies the columns of a batch to tensors, in the order of the module's arguments; see ``arguments``."""
    given = arguments(arrays, least)
    return tuple(torch.tensor(np.ascontiguousarray(array)) for array in given.values())


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


def _corner(output: torch.Tensor, smaller: torch.Tensor) -> torch.Tensor:
    """Returns the first elements of an output along every dimension, as many as a smaller one has."""
    if output.dim() != smaller.dim():
        return output
    return output[tuple(slice(size) for size in smaller.shape)]


def _called(module: torch.nn.Module, name: str) -> str:
    kind = type(module.get_submodule(name)).__name__
    return f"layer {name} ({kind})" if name else f"the module itself ({kind})"


def _what_fits(task: Task) -> str:
    if isinstance(task, Classification):
        return f"{task.outputs} labels need logits of shape (rows, {task.outputs})"
    return "a regression needs values of shape (rows,), or values and positive spreads of shape (rows, 2)"
