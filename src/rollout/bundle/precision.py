"""How precisely a network can be computed at all: its scores in single precision beside those in double."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from rollout.bundle.golden import Golden
from rollout.bundle.parity import TOLERANCE, count, run_in_batches, take
from rollout.bundle.source import Source

# Two runtimes round in other places, and of all rows some are farther off than the few that are measured.
ROUNDINGS = 8.0
# A network that rounding moves by more gets no more: then its variants are left out, and say by how much.
MOST_TOLERANCE = 0.01
DOUBLE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


class InDouble(TorchDispatchMode):
    """Has torch compute in double precision whatever a module asks for in single precision, casts included."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs one operator.

        Raises:
            TypeError: If it would change a tensor in single precision, which a copy cannot stand for.
        """
        dtypes = [value.dtype for value in args if isinstance(value, torch.Tensor)]
        if func._schema.is_mutable and any(dtype in DOUBLE for dtype in dtypes):
            raise TypeError(f"{func} changes a tensor in single precision")
        args, kwargs = tree_map(_double, args), tree_map(_double, dict(kwargs or {}))
        if func is torch.ops.aten.convolution.default and (given := _grouped(args)) is not None:
            return given
        return tree_map(_double, func(*args, **kwargs))


def tolerances(source: Source, probes: Mapping[str, Golden], most: int) -> dict[str, float]:
    """Returns how far a variant's scores may be off, for each set of rows.

    That is ``TOLERANCE``, or ``ROUNDINGS`` times the largest difference between what the source gives for these
    rows in single and in double precision where that is more. Of a source that has no double precision, such as
    an ONNX graph, it is ``TOLERANCE``.

    Args:
        source: What the variants are made from.
        probes: Rows with the source's scores, by name.
        most: Rows of each set to look at, from all over it; double precision takes a multiple of the time.
    """
    return {name: _tolerance(source, probe, most) for name, probe in probes.items()}


def _tolerance(source: Source, probe: Golden, most: int) -> float:
    rows = np.unique(np.linspace(0, count(probe.inputs) - 1, most).astype(int))
    try:
        precise = run_in_batches(source.precise, take(probe.inputs, rows))
    except Exception:  # whatever an operator says that does not know double precision
        return TOLERANCE
    far = float(source.task.distances(probe.scores[rows], precise).max(initial=0.0))
    return min(max(TOLERANCE, ROUNDINGS * far), MOST_TOLERANCE) if np.isfinite(far) else TOLERANCE


def _grouped(args: tuple[Any, ...]) -> torch.Tensor | None:
    """Convolves images in groups by a matrix product for each weight; torch takes far longer in double.

    Args:
        args: Of ``aten.convolution``.

    Returns:
        ``None`` if there is one group, or no image.
    """
    x, weight, bias, stride, padding, dilation, is_transposed, _, groups = args
    if is_transposed or groups == 1 or x.ndim != 4:  # of images
        return None
    apart = weight.unflatten(0, (groups, -1))
    x = torch.nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0])).unflatten(1, (groups, -1))
    spans = [
        side - far * (size - 1) for side, far, size in zip(x.shape[3:], dilation, weight.shape[2:], strict=True)
    ]
    found: torch.Tensor | float = 0.0
    for i, j in itertools.product(*map(range, weight.shape[2:])):
        rows, columns = (
            slice(at * far, at * far + span, step)
            for at, far, span, step in zip((i, j), dilation, spans, stride, strict=True)
        )
        part = x[:, :, :, rows, columns]
        found = found + (apart[..., i, j] @ part.flatten(3)).unflatten(3, part.shape[3:])
    found = torch.as_tensor(found).flatten(1, 2)
    return found if bias is None else found + bias.view(1, -1, 1, 1)


def _double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(DOUBLE[value.dtype]) if value.dtype in DOUBLE else value
    return DOUBLE.get(value, value) if isinstance(value, torch.dtype) else value
