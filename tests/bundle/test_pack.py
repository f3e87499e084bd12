"""Packing compares every variant with its source, and stores nothing that disagrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rollout import Labelled, RolloutError, Tensor, pack
from rollout.bundle import export, runtimes
from rollout.bundle.manifest import Manifest
from rollout.bundle.parity import compare, run_in_batches, synthetic_inputs
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.bundle.verify import load_variant, verify_bundle


class Two(nn.Module):
    """Says whether the sum of two numbers is positive; dropout and batch norm make eval mode matter."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        total = self.drop(self.norm(x.sum(1, keepdim=True)))
        return torch.cat([-total, total], 1) * 3


class StuckInTraining(nn.Dropout):
    """A layer that ignores ``eval()``."""

    def train(self, mode: bool = True) -> StuckInTraining:  # noqa: FBT002
        """Stays in training mode."""
        return super().train(True)


def part(rows: int, seed: int) -> Labelled:
    x = np.random.default_rng(seed).normal(size=(rows, 2)).astype(np.float32)
    return Labelled({"x": x}, (x.sum(1) > 0).astype(int))


def pack_two(version: str, module: nn.Module | None = None, **changes: Any) -> Manifest:
    arguments: dict[str, Any] = {
        "name": "two",
        "version": version,
        "inputs": {"x": Tensor(shape=(2,))},
        "labels": ["no", "yes"],
        "calibration": part(500, 1),
        "evaluation": part(100, 2),
    }
    return pack(module or Two(), **(arguments | changes))


def test_packs_every_variant_and_verifies_from_disk() -> None:
    module = Two()
    module.train()
    steps: list[str] = []
    manifest = pack_two("v1", module, on_step=steps.append, lineage={"seeds": {"torch": 3}})
    assert module.training, "the caller's module is left as it was"
    assert set(manifest.variants) == set(export.EXPORTERS) == set(runtimes.RUNTIMES)
    assert len(steps) == 3
    assert manifest.metrics["accuracy"] == 1
    assert manifest.lineage["seeds"] == {"torch": 3}
    assert manifest.lineage["environment"]["packages"]["torch"].startswith("2.13")
    folder, read = open_bundle("two:v1")
    assert read == manifest
    for parity in verify_bundle(folder, manifest).values():
        assert parity.holds
        assert parity.rows >= 16


def test_a_version_never_changes() -> None:
    pack_two("v2")
    with pytest.raises(RolloutError, match=r"two:v2 exists already and a version never changes"):
        pack_two("v2")


def test_a_layer_in_training_mode_is_named() -> None:
    module = nn.Sequential(Two(), StuckInTraining(0.5))
    with pytest.raises(RolloutError, match="layer 1 stays in training mode"):
        pack_two("v3", module)


def test_a_variant_that_decides_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def export_another(scorer: export.Scorer, example: dict[str, np.ndarray], path: Path) -> None:
        with torch.no_grad():
            scorer.module.norm.bias.add_(0.5)  # type: ignore[union-attr, operator]
        export.export_onnx(scorer, example, path)

    monkeypatch.setitem(export.EXPORTERS, "onnx", ("onnx/model.onnx", export_another))
    with pytest.raises(
        RolloutError, match="two:v4 is refused: its onnx variant disagrees with the source module"
    ):
        pack_two("v4")
    assert not bundle_exists("two:v4")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ["one"]}, "for 1 labels"),
        ({"inputs": {"y": Tensor(shape=(2,))}}, "expected arrays for"),
        ({"inputs": {"x": Tensor(shape=(3,))}}, "expected shape"),
        ({"evaluation": Labelled(part(9, 0).inputs, np.zeros(8))}, "different numbers of rows"),
    ],
)
def test_data_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        pack_two("v5", **changes)


def test_parity_counts_flips_and_nan() -> None:
    expected = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)
    got = np.array([[0.4, 0.6], [0.2, 0.8], [0.5, 0.5]], np.float32)
    parity = compare(expected, got, 0.7)
    assert (parity.labels_flipped, parity.reviews_flipped) == (1, 1)
    assert not parity.holds
    got[2] = np.nan
    assert compare(expected, got, 0.0).largest_difference == np.inf


def test_batches_of_several_sizes_cover_every_row_once() -> None:
    sizes = []

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        sizes.append(len(inputs["x"]))
        return inputs["x"]

    numbers = np.arange(200, dtype=np.float32)[:, None]
    assert np.array_equal(run_in_batches(run, {"x": numbers}), numbers)
    assert set(sizes) >= {1, 2, 3, 7, 32, 64}


def test_synthetic_inputs_reach_both_ends_of_the_range() -> None:
    arrays = synthetic_inputs({"x": Tensor(shape=(2,), minimum=-4, maximum=9)}, 50, seed=1)
    assert arrays["x"][0].tolist() == [-4, -4]
    assert arrays["x"][1].tolist() == [9, 9]
    assert arrays["x"].min() >= -4
    assert arrays["x"].max() <= 9


def test_a_variant_that_is_not_there_is_named() -> None:
    manifest = pack_two("v6")
    folder, _ = open_bundle("two:v6")
    with pytest.raises(RolloutError, match="two:v6 has no variant tensorrt; it has onnx, torchscript"):
        load_variant(folder, manifest, "tensorrt")
