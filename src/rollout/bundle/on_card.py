"""A module on a GPU, fed: one copy a batch, from memory that the card reads itself, and one start of a graph.

What a batch of each shape needs is made when that shape first comes, which is while a worker warms up: buffers on
both sides, and a CUDA graph of the module. Each variant that is loaded has its own stream, one batch at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.errors import OverloadedError
from rollout.heads import Scores

# What a batch of a shape needs is held for so many shapes; rows of free lengths have more.
MOST_SHAPES = 64
WARM_UP = 3  # before a graph is captured, as PyTorch's manual says


class Held(NamedTuple):
    """What a batch of one shape needs.

    Attributes:
        pinned: Its inputs in memory of the machine that the card reads.
        inputs: The same on the card.
        start: Computes the scores of these, on the stream.
        scores: Where the scores are, on the card.
        answer: Where they go, in memory that the card writes.
    """

    pinned: Sequence[Any]
    inputs: Sequence[Any]
    start: Callable[[], object]
    scores: Any
    answer: Any


class OnCard:
    """Scores batches on a card.

    Args:
        torch: PyTorch.
        module: What takes the inputs, on the card, and gives scores.
        device: The card.
    """

    def __init__(self, torch: Any, module: Callable[..., Any], device: str) -> None:
        self._torch, self._module, self._device = torch, module, device
        self._stream = torch.cuda.Stream()
        self._held: dict[tuple[Any, ...], Held] = {}
        self._lock = threading.Lock()

    def run(self, arrays: Sequence[NDArray[Any]]) -> Scores:
        """Scores a batch.

        Raises:
            OverloadedError: If the card has no memory left for it.
        """
        shapes = tuple((array.shape, array.dtype.str) for array in arrays)
        try:
            with self._lock, self._torch.inference_mode(), self._torch.cuda.stream(self._stream):
                held = self._held.get(shapes) or self._prepare(shapes, arrays)
                for pinned, given, array in zip(held.pinned, held.inputs, arrays, strict=True):
                    np.copyto(pinned.numpy(), array)
                    given.copy_(pinned, non_blocking=True)
                held.start()
                held.answer.copy_(held.scores, non_blocking=True)
                self._stream.synchronize()
                return np.array(held.answer.numpy())
        except self._torch.cuda.OutOfMemoryError as error:
            self._torch.cuda.empty_cache()
            raise OverloadedError(
                f"{self._device} has no memory left for a batch of {len(arrays[0])} rows: let fewer versions or "
                "workers share it"
            ) from error

    def _prepare(self, shapes: tuple[Any, ...], arrays: Sequence[NDArray[Any]]) -> Held:
        torch = self._torch
        dtypes = [torch.from_numpy(np.empty(0, array.dtype)).dtype for array in arrays]
        sizes = [(array.shape, dtype) for array, dtype in zip(arrays, dtypes, strict=True)]
        pinned = [torch.empty(shape, dtype=dtype, pin_memory=True) for shape, dtype in sizes]
        inputs = [torch.zeros(shape, dtype=dtype, device=self._device) for shape, dtype in sizes]
        for _ in range(WARM_UP):
            scores = self._module(*inputs)
        answer = torch.empty(tuple(scores.shape), dtype=scores.dtype, pin_memory=True)
        if len(self._held) >= MOST_SHAPES:
            return Held(pinned, inputs, lambda: scores.copy_(self._module(*inputs)), scores, answer)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                captured = self._module(*inputs)
            held = Held(pinned, inputs, graph.replay, captured, answer)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError:  # what waits for the card on its way cannot be captured
            held = Held(pinned, inputs, lambda: scores.copy_(self._module(*inputs)), scores, answer)
        self._held[shapes] = held
        return held
