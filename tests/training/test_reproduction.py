"""A version is trained again and compared with its bundle; what changed is said under three heads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from rollout import Classification, Dataset, Labelled, Recipe, Tensor, Version
from rollout.bundle.lineage import differences
from rollout.bundle.manifest import Manifest
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.bundle.variants import VARIANTS
from rollout.training.build import build_version
from rollout.training.reproduction import reproduce_version
from tests.bundle.two import Coarse


def part(rows: int, seed: int) -> Labelled:
    x = np.random.default_rng(seed).normal(size=(rows, 2)).astype(np.float32)
    return Labelled({"x": x}, (x.sum(1) > 0).astype(int))


def load() -> Dataset:
    return Dataset(part(300, 1), part(500, 2), part(300, 3), "drawn", "by seed")


class Sum(torch.nn.Module):
    """Says whether the sum is positive, with weights a little off."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.linear.weight.data = torch.stack([-weight, weight])
        self.linear.bias.data.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.linear(x)
        return logits


def recipe(weight: float = 5.0, noise: float = 0.0, flip_rate: float = 0.002) -> Recipe:
    def train(part: Labelled, seed: int) -> torch.nn.Module:
        return Sum(torch.tensor([weight, 5.0]) + noise * torch.randn(2)).eval()

    task = Classification(labels=["no", "yes"], risk=0.1)
    version = Version(train, task, {"weight": weight, "sizes": (1, 2)}, flip_rate)
    return Recipe(name="sums", inputs={"x": Tensor(shape=(2,))}, load=load, versions={"v1": version})


@pytest.fixture(scope="module")
def built() -> tuple[Path, Manifest]:
    if not bundle_exists("sums:v1"):
        build_version(recipe(noise=0.3), "v1", lambda _: None)
    return open_bundle("sums:v1")


def test_the_same_recipe_gives_the_same_bits(built: tuple[Path, Manifest]) -> None:
    result = reproduce_version(recipe(noise=0.3), *built, seeds=3)
    assert result.outcome == "identical"
    assert not any(result.changes.values())


def test_another_seed_lies_within_the_spread(built: tuple[Path, Manifest]) -> None:
    folder, manifest = built
    seeds = {"random": 7, "numpy": 7, "torch": 7}
    other = msgspec.structs.replace(manifest, lineage={**manifest.lineage, "seeds": seeds})
    result = reproduce_version(recipe(noise=0.3), folder, other, seeds=4)
    assert result.outcome == "within the spread over seeds"
    assert result.changes["code"]["seeds.torch"] == (7, 0)


def test_another_model_is_not_reproduced_and_what_changed_is_named(built: tuple[Path, Manifest]) -> None:
    result = reproduce_version(recipe(weight=-3.0), *built, seeds=3)
    assert result.outcome == "not reproduced"
    assert "the loss was" in result.why
    assert result.changes["code"]["hyperparameters.weight"] == (5.0, -3.0)
    assert not result.changes["data"]


def test_differences_stand_under_their_head() -> None:
    before = {"environment": {"python": "3.11", "packages": {"torch": "2.12"}}, "data": {"sha256": "a"}}
    after = {
        "environment": {"python": "3.11", "packages": {"torch": "2.13"}},
        "data": {"sha256": "a", "rows": [1]},
    }
    found = differences(before, after)
    assert found["environment"] == {"environment.packages.torch": ("2.12", "2.13")}
    assert found["data"] == {"data.rows": (None, [1])}
    assert found["code"] == {}


def test_a_version_declares_how_much_a_quantized_variant_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "onnx-int8", Coarse)
    declared = msgspec.structs.replace(recipe(weight=4.0, flip_rate=0.0003), name="declared")
    manifest = build_version(declared, "v1", lambda _: None)
    assert manifest.left_out["onnx-int8"].why.startswith("it answers more than 0.03% of the evaluation part")
