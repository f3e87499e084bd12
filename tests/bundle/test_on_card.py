"""A card is fed by buffers and graphs. No card is at hand: PyTorch on the processor stands in for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rollout.bundle import on_card
from rollout.bundle.on_card import OnCard
from rollout.errors import OverloadedError
from rollout.inference.batcher import Batcher
from rollout.inference.profile import Profile


class Stream:
    """Does at once what it is told."""

    def synchronize(self) -> None:
        """Nothing is left to wait for."""


class Card:
    """What of ``torch`` is used, where a graph runs again what was called while it was captured."""

    OutOfMemoryError = torch.cuda.OutOfMemoryError

    def __init__(self) -> None:
        self.capturing: list[Callable[[], object]] | None = None
        self.captured = self.emptied = 0
        self.cuda = self
        self.Stream = Stream
        self.CUDAGraph = SimpleNamespace
        self.inference_mode, self.from_numpy = torch.inference_mode, torch.from_numpy

    def empty(self, shape: Any, dtype: Any, pin_memory: bool) -> Any:
        assert pin_memory
        return torch.empty(shape, dtype=dtype)

    def zeros(self, shape: Any, dtype: Any, device: str) -> Any:
        assert device == "cuda"
        return torch.zeros(shape, dtype=dtype)

    def stream(self, stream: Stream) -> Any:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def graph(self, graph: Any, stream: Stream) -> Iterator[None]:
        steps: list[Callable[[], object]] = []
        self.capturing = steps
        graph.replay = lambda: [step() for step in steps]
        try:
            yield
            self.captured += 1
        finally:
            self.capturing = None

    def empty_cache(self) -> None:
        self.emptied += 1

    def module(self, one: Any, other: Any) -> Any:
        scores = one.float() + other
        if self.capturing is not None:
            self.capturing.append(lambda: scores.copy_(one.float() + other))
        return scores


def batch(rows: int, seed: int) -> list[np.ndarray[Any, Any]]:
    chance = np.random.default_rng(seed)
    return [chance.integers(0, 9, (rows, 2)).astype(np.uint8), chance.normal(size=(rows, 2)).astype(np.float32)]


def test_a_graph_for_each_shape_is_captured_once_and_scores_every_batch() -> None:
    card = Card()
    fed = OnCard(card, card.module, "cuda")
    for seed, rows in enumerate((1, 4, 1, 4, 4)):
        one, other = batch(rows, seed)
        assert np.array_equal(fed.run([one, other]), one + other)
    assert card.captured == 2
    first = fed.run(batch(4, 8))
    kept = first.copy()
    fed.run(batch(4, 9))
    assert np.array_equal(first, kept), "an answer is nobody's buffer"


def test_beyond_so_many_shapes_and_where_nothing_can_be_captured_it_runs_without_a_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(on_card, "MOST_SHAPES", 1)
    card = Card()
    fed = OnCard(card, card.module, "cuda")
    for rows in (1, 2, 3, 2):
        one, other = batch(rows, rows)
        assert np.array_equal(fed.run([one, other]), one + other)
    assert card.captured == 1

    def waits(*inputs: Any) -> Any:
        if card.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        return card.module(*inputs)

    monkeypatch.setattr(on_card, "MOST_SHAPES", 64)
    one, other = batch(5, 1)
    assert np.array_equal(OnCard(card, waits, "cuda").run([one, other]), one + other)


def test_out_of_memory_sheds_and_says_so() -> None:
    card = Card()

    def full(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    fed = OnCard(card, full, "cuda")
    with pytest.raises(OverloadedError, match="cuda has no memory left for a batch of 4 rows: let fewer"):
        fed.run(batch(4, 0))
    assert card.emptied == 1

    def score(arrays: Any) -> Any:
        return fed.run([arrays["one"], arrays["other"]])

    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(score, Profile([0.0, 0.001, 0.001], 1), longest_wait=1, executor=executor)
        one, other = batch(2, 0)
        decisions, _ = batcher.run({"one": one, "other": other})
    assert {type(error) for error in decisions.errors.values()} == {OverloadedError}
