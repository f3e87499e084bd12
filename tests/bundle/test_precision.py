"""How far scores may be off follows from the network's own rounding, and ties of decisions are named."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from rollout.bundle.golden import Golden, read_golden
from rollout.bundle.parity import TOLERANCE, compare, take
from rollout.bundle.precision import MOST_TOLERANCE, ROUNDINGS, tolerances
from rollout.bundle.schema import Arrays
from rollout.bundle.source import ModuleSource
from rollout.bundle.store import open_bundle
from rollout.bundle.variants import VARIANTS, Onnx
from rollout.bundle.verify import check_golden, load_variant
from rollout.errors import BundleError
from rollout.heads import Scores
from tests.bundle.two import TASK, Linear, pack_two, part

OFF = 3e-4
FEW = 8


class Amplified(nn.Module):
    """Rounds its input away from where it was, and amplifies by how much, as deep networks do.

    Args:
        by: Moves the input so far that of its digits few are left.
    """

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by, self.linear = by, Linear(0.3, 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.linear((x.float() + self.by) - self.by)
        return logits


class Rounds(Onnx):
    """Rounds its logits otherwise than the source."""

    def run(self, inputs: Arrays) -> Scores:
        scores = super().run(inputs)
        far = 4 * OFF * scores.prod(1, keepdims=True) * np.array([-1, 1], np.float32)
        return np.asarray(scores + far, np.float32)


class Grouped(nn.Module):
    """Convolutions in groups, with the options that they have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(4, 8, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(2, 1), groups=2),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, groups=8, bias=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.layers(x)
        return logits


def source_of(module: nn.Module, rows: Arrays) -> ModuleSource:
    return ModuleSource(module.eval(), TASK, take(rows, slice(0, 2)))


def tolerance_of(by: float) -> float:
    rows = part(64, 1).inputs
    source = source_of(Amplified(by), rows)
    return tolerances(source, {"rows": Golden(rows, source.run(rows))}, FEW)["rows"]


def test_a_network_that_rounding_hardly_moves_is_held_to_the_least() -> None:
    assert tolerance_of(1.0) == TOLERANCE


def test_the_tolerance_is_a_multiple_of_what_single_precision_moves_within_a_bound() -> None:
    rows = part(FEW, 1).inputs
    source = source_of(Amplified(4096.0), rows)
    scores, precise = source.run(rows), source.precise(rows)
    assert precise.dtype == np.float64
    far = np.abs(scores - precise).max()
    assert TOLERANCE < ROUNDINGS * far < MOST_TOLERANCE
    found = tolerances(source, {"rows": Golden(rows, scores)}, FEW)["rows"]
    assert found == pytest.approx(ROUNDINGS * far)
    assert tolerance_of(1e6) == MOST_TOLERANCE


def test_double_precision_is_that_of_a_module_in_double() -> None:
    x = np.random.default_rng(0).normal(size=(5, 4, 12, 12)).astype(np.float32)
    module = Grouped().eval()
    with torch.inference_mode():
        expected = torch.softmax(Grouped().double().eval()(torch.tensor(x).double()), 1).numpy()
    assert np.abs(source_of(module, {"x": x}).precise({"x": x}) - expected).max() < 1e-12


class InPlace(nn.Module):
    """Changes a tensor that is in single precision whatever its input is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear()
        self.register_buffer("kept", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        with torch.no_grad():
            self.get_buffer("kept").copy_(torch.ones(2))
        logits: torch.Tensor = self.linear(x) * self.get_buffer("kept")
        return logits


def test_a_module_that_cannot_be_computed_in_double_is_held_to_the_least() -> None:
    rows = part(8, 1).inputs
    module = InPlace().eval()
    module(torch.zeros(1, 2))  # from here on it changes nothing any more
    source = source_of(module, rows)
    assert tolerances(source, {"rows": Golden(rows, source.run(rows))}, FEW)["rows"] == TOLERANCE


def test_a_bundle_remembers_how_far_its_scores_may_be_off_and_is_held_to_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A variant that is off by more than 1e-4, and by less than the module itself."""
    monkeypatch.setitem(VARIANTS, "onnx", Rounds)
    assert pack_two("precise", Linear(0.3, 0.3).eval()).left_out["onnx"].why.startswith("it disagrees")
    manifest = pack_two("amplified", Amplified(16384.0).eval())
    parity = manifest.variants["onnx"].parity
    assert parity["golden"].tolerance > parity["golden"].largest_difference > TOLERANCE
    folder, manifest = open_bundle("two:amplified")
    golden = read_golden(folder)
    assert check_golden(golden, manifest, "onnx", load_variant(folder, manifest, "onnx")).is_exact
    beyond = Golden(golden.inputs, golden.scores + np.float32(2 * parity["golden"].tolerance))
    with pytest.raises(BundleError, match="disagrees with the source module"):
        check_golden(beyond, manifest, "onnx", load_variant(folder, manifest, "onnx"))


def test_a_tie_is_named_and_no_flip() -> None:
    task = msgspec.structs.replace(TASK, review_threshold=0.7)
    expected = np.array([[0.50004, 0.49996], [0.9, 0.1], [0.70002, 0.29998]], np.float32)
    got = np.array([[0.49997, 0.50003], [0.9, 0.1], [0.69995, 0.30005]], np.float32)
    parity = compare(task, expected, got)
    assert parity.is_exact
    assert parity.ties == [0, 2]
    assert str(parity).endswith("; ties: row 0, 2")
    got[0] = [0.4, 0.6]
    parity = compare(task, expected, got)
    assert (parity.answers_flipped, parity.ties) == (1, [2])
    got[1] = np.nan
    assert 1 not in compare(task, expected, got).ties
