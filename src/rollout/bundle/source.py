"""The source: a module as it was given, with the last step inside, and what makes it unfit to be packed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.capture import capture, trace
from rollout.bundle.faults import batch_dependent_layer, require_eval, require_repeatable
from rollout.bundle.module import one_tensor, own_copy, plain_attention, require_signature
from rollout.bundle.schema import Arrays
from rollout.bundle.task import Classification, Scores, Task
from rollout.errors import BundleError


class Source(torch.nn.Module):
    """What every variant is exported from and compared with.

    Args:
        module: Takes one tensor per field, each of shape ``(rows, *field.shape)``; see the task for what it
            returns. It is copied.
        task: What it answers.
        example: Two or more rows, for each field an array of shape ``(rows, *field.shape)``.

    Attributes:
        output_shape: What the module itself gives for one row: a single logit may speak for two labels.

    Raises:
        BundleError: If the module cannot be copied or takes other arguments than the fields, a layer is in
            training mode, changes its input or its buffers when it is called or answers differently when it is
            asked twice, or the outputs do not fit the task.
    """

    def __init__(self, module: torch.nn.Module, task: Task, example: Arrays) -> None:
        super().__init__()
        self.module = own_copy(module)
        self.training = False
        self.has_spread = False
        self.task = task
        self.example = example
        require_eval(self.module)
        require_signature(self.module, list(example))
        tensors = to_tensors(example)
        with plain_attention():
            require_repeatable(self.module, tensors, task.needs)
        with torch.inference_mode(), plain_attention():
            shape = tuple(one_tensor(self.module(*tensors), task.needs).shape)
        if not task.fits(shape[1:]) or shape[:1] != (len(tensors[0]),):
            raise BundleError(
                f"the module gives outputs of shape {shape} for {len(tensors[0])} rows; {task.needs}"
            )
        self.output_shape = shape[1:]
        self.has_spread = shape[1:] == (2,)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Returns scores, ``float32`` of shape ``(rows, task.outputs)``."""
        return self.last_step(self._answer(*inputs))

    def last_step(self, outputs: torch.Tensor) -> torch.Tensor:
        """Turns what the module gives into scores: softmax and temperature, or half the width of the interval."""
        if isinstance(self.task, Classification):
            return torch.softmax(outputs / self.task.temperature, dim=-1)
        value = outputs[:, :1] if outputs.dim() == 2 else outputs.unsqueeze(1)
        spread = outputs[:, 1:] if self.has_spread else torch.ones_like(value)
        return torch.cat([value, spread * self.task.half_width], dim=1)

    def _answer(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.of_all_labels(one_tensor(self.module(*inputs), self.task.needs))

    def of_all_labels(self, outputs: torch.Tensor) -> torch.Tensor:
        """Puts the logits of all labels in the place of the one logit that two labels may have."""
        if isinstance(self.task, Classification) and outputs.shape[1:] != (self.task.outputs,):
            # The sigmoid of x is the second of the softmax of (0, x).
            logit = outputs.reshape(-1, 1)
            return torch.cat([torch.zeros_like(logit), logit], dim=1)
        return outputs

    def outputs(self, inputs: Arrays) -> NDArray[np.float32]:
        """Returns what the module gives for a batch: logits of all labels, or values and spreads."""
        with torch.inference_mode(), plain_attention():
            outputs: NDArray[np.float32] = self._answer(*to_tensors(inputs)).numpy()
            return outputs

    def run(self, inputs: Arrays) -> Scores:
        """Scores a batch, as the variants do; see ``Variant.run``."""
        with torch.inference_mode(), plain_attention():
            scores: Scores = self(*to_tensors(inputs)).numpy()
            return scores

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
                return capture(self, to_tensors(self.example))
        except BundleError as error:
            return error

    def traced(self) -> Any:
        """Traces the module to TorchScript, frozen.

        Raises:
            BundleError: If the trace would hold for the example alone.
        """
        program = self._captured
        with plain_attention():
            return trace(self, to_tensors(self.example), None if isinstance(program, BundleError) else program)

    def batch_dependent_layer(self, inputs: Arrays) -> str:
        """Names the first layer whose output for the first row depends on the other rows of the batch."""
        with plain_attention():
            return batch_dependent_layer(self.module, to_tensors(inputs))


def to_tensors(arrays: Mapping[str, NDArray[Any]]) -> tuple[torch.Tensor, ...]:
    """Copies the arrays of a batch to tensors, in the order of the fields."""
    return tuple(torch.tensor(np.ascontiguousarray(array)) for array in arrays.values())
