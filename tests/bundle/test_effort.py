"""Packing takes as long as a row costs: what is compared of a costly one, on which cores, and how far it is."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from rollout.bundle import effort, quantizing
from rollout.bundle.effort import (
    COSTLY,
    EVERY_SIZE,
    FEW_ROWS,
    FEW_SIZES,
    Effort,
    Packing,
    RowsToScore,
    take_effort,
)
from rollout.bundle.parity import MAX_BATCH, run_in_batches
from rollout.bundle.schema import Arrays
from rollout.bundle.store import open_bundle
from rollout.bundle.variants import VARIANTS, Onnx, OnnxInt8
from rollout.heads import Scores
from tests.bundle.test_screening import MindsCompany
from tests.bundle.two import Linear, pack_two, part


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes every row for a costly one."""
    monkeypatch.setattr(effort, "COSTLY", 0.0)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ([0.0, 9.0], Effort(EVERY_SIZE, 256, 8, MAX_BATCH)),
        ([4 * COSTLY, 2 * COSTLY], Effort(FEW_SIZES, 64, 4, FEW_ROWS, 2, 2, is_costly=True)),
        ([4 * COSTLY, 9 * COSTLY], Effort(FEW_SIZES, 64, 4, FEW_ROWS, 2, 1, is_costly=True)),
    ],
    ids=["cheap", "costly", "cores that others use"],
)
def test_what_is_compared_follows_from_what_a_row_costs(
    monkeypatch: pytest.MonkeyPatch, seconds: list[float], chosen: Effort
) -> None:
    """The seconds of a batch are those on one thread and on two."""
    monkeypatch.setattr(effort, "usable_cores", lambda: 2)

    def run(inputs: Arrays) -> Scores:
        time.sleep(seconds[torch.get_num_threads() - 1])
        return np.zeros((len(inputs["x"]), 2), np.float32)

    before = torch.get_num_threads()
    try:
        assert take_effort(run, part(8, 1).inputs) == chosen
        assert torch.get_num_threads() == chosen.threads
    finally:
        torch.set_num_threads(before)


def test_few_sizes_are_the_small_ones_the_powers_of_two_and_the_largest() -> None:
    assert set(range(1, 10)) | {16, 32, MAX_BATCH} <= set(FEW_SIZES) < set(EVERY_SIZE)


@pytest.mark.usefixtures("costly")
def test_a_costly_row_is_compared_less_often_and_torch_computes_as_before_afterwards() -> None:
    torch.set_num_threads(1)
    seen: list[Packing] = []
    manifest = pack_two("costly", Linear().eval(), on_progress=seen.append)
    assert torch.get_num_threads() == 1
    parity = manifest.variants["onnx"].parity
    assert parity["batch sizes"].rows == sum(FEW_SIZES)
    assert parity["random"].rows == 64
    shares = [now.share for now in seen]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.2
    assert shares[-1] > 0.8
    assert all(now.seconds_left >= 0 for now in seen)


@pytest.mark.usefixtures("costly")
def test_a_planted_dependence_on_the_batch_is_found_in_few_sizes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "onnx", MindsCompany)
    manifest = pack_two("costly-company", Linear().eval())
    assert manifest.left_out["onnx"].why.startswith("it disagrees with the source (batch sizes)")


def test_what_is_left_out_is_behind_and_not_waited_for() -> None:
    seen: list[Packing] = []
    rows = RowsToScore(100, seen.append)
    run = rows.counting(lambda inputs: inputs["x"])
    run({"x": np.zeros((10, 1), np.float32)})
    rows.reach(50)
    run({"x": np.zeros((10, 1), np.float32)})
    rows.reach(20)
    run({"x": np.zeros((90, 1), np.float32)})
    assert [now.share for now in seen] == [0.1, 0.6, 1.0]
    assert seen[-1].seconds_left == 0


class Wide(nn.Module):
    """Activations of 4 kB a row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.layers(x)
        return logits


def test_quantizing_holds_the_activations_of_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And finds the same ranges, to the width of a bin."""
    held: list[int] = []
    whole = quantizing._Batches.get_next

    def counted(batches: quantizing._Batches) -> Arrays | None:
        if (batch := whole(batches)) is not None:
            held[-1] += len(batch["x"])
        return batch

    begin = quantizing._Batches.set_range

    def group(batches: quantizing._Batches, start_index: int, end_index: int) -> None:
        held.append(0)
        begin(batches, start_index, end_index)

    monkeypatch.setattr(quantizing._Batches, "get_next", counted)
    monkeypatch.setattr(quantizing._Batches, "set_range", group)
    pack_two("wide", Wide().eval(), flip_rate=1.0)
    assert len(held) == 1
    rows = held.pop()
    monkeypatch.setattr(quantizing, "HELD_BYTES", 64 * 4 * 4096)
    manifest = pack_two("wide-in-groups", Wide().eval(), flip_rate=1.0)
    assert sum(held) >= rows - quantizing.BATCH
    assert max(held) < rows / 2
    scores = [
        OnnxInt8(open_bundle(f"two:{version}")[0] / OnnxInt8.file).run(part(100, 2).inputs)
        for version in ("wide", "wide-in-groups")
    ]
    assert "onnx-int8" in manifest.variants
    assert np.abs(scores[0] - scores[1]).max() < 0.02


@pytest.mark.usefixtures("costly")
def test_variants_run_in_batches_at_a_time_and_the_source_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[int]] = {"source": set(), "onnx": set()}

    class Watched(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen["source"].add(threading.get_ident())
            return super().forward(x)

    class Onnx2(Onnx):
        def run(self, inputs: Arrays) -> Scores:
            seen["onnx"].add(threading.get_ident())
            time.sleep(0.01)
            return super().run(inputs)

    monkeypatch.setattr(effort, "usable_cores", lambda: 3)
    monkeypatch.setitem(VARIANTS, "onnx", Onnx2)
    manifest = pack_two("at-a-time", Watched().eval(), variants=["onnx"])
    assert seen["source"] == {threading.get_ident()}
    assert len(seen["onnx"] - seen["source"]) > 1
    assert manifest.variants["onnx"].parity["batch sizes"].largest_difference < 1e-6


def test_what_a_batch_raises_in_a_thread_is_raised_and_the_others_are_not_begun() -> None:
    begun: list[int] = []

    def run(inputs: Arrays) -> Scores:
        begun.append(len(inputs["x"]))
        time.sleep(0.01)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_in_batches(run, {"x": np.zeros((100, 1), np.float32)}, size=1, at_a_time=2)
    assert len(begun) < 50
