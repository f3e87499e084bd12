"""A variant that decides differently is left out, with the reason and its worst rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from msgspec import UNSET
from torch import nn

from rollout import Labelled, Number, RolloutError, Table, Tensor
from rollout.bundle.effort import Effort
from rollout.bundle.golden import Golden
from rollout.bundle.manifest import LeftOut
from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays
from rollout.bundle.screening import Screening
from rollout.bundle.source import ModuleSource, Source
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.bundle.variants import VARIANTS, Onnx, OnnxInt8, to_pack
from rollout.heads import Scores, decode_head
from tests.bundle.two import TASK, Coarse, Linear, pack_two, part


class Biased(Onnx):
    """Claims to be exact, and adds a little to the second score."""

    def run(self, inputs: Arrays) -> Scores:
        return super().run(inputs) + np.array([-0.01, 0.01], np.float32)


class MindsCompany(Onnx):
    """Answers for a row according to the batch."""

    def run(self, inputs: Arrays) -> Scores:
        scores = super().run(inputs)
        return scores + np.float32(0.001 * (len(scores) == 17))


class NotANumber(OnnxInt8):
    """Gives NaN far from what it was calibrated on."""

    def run(self, inputs: Arrays) -> Scores:
        scores = super().run(inputs)
        scores[np.abs(inputs["x"]).max(1) > 100] = np.nan
        return scores


class Broken(Onnx):
    """Cannot be exported."""

    @classmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        raise ValueError("no such operator\nand a long trace")


def test_a_quantization_that_is_too_coarse_is_left_out_and_the_rest_is_packed() -> None:
    def scaled(rows: int, seed: int) -> Labelled:
        inputs = part(rows, seed).inputs["x"] * np.array([1000, 1], np.float32)
        return Labelled({"x": inputs}, (inputs[:, 1] > 0).astype(int))

    module = Linear(first=0, second=1).eval()
    manifest = pack_two("coarse", module, calibration=scaled(500, 1), evaluation=scaled(100, 2))
    assert set(manifest.variants) == {kind.name for kind in to_pack()} - {"onnx-int8"}
    left_out = manifest.left_out["onnx-int8"]
    assert left_out.why.startswith("it answers more than 0.20% of the evaluation part differently: of 100 rows")
    assert any(line.startswith("evaluation row") and " became " in line for line in left_out.worst)
    folder, _ = open_bundle("two:coarse")
    assert not (folder / "onnx-int8").exists()


def test_a_variant_that_rounds_its_scores_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "onnx-int8", Coarse)
    manifest = pack_two("rounds", Linear(0.1, 0.1).eval())
    assert manifest.left_out["onnx-int8"].why.startswith("it answers more than 0.20%")
    assert len(manifest.left_out["onnx-int8"].worst) >= 3
    assert all(" became " in line for line in manifest.left_out["onnx-int8"].worst)


def test_an_example_of_ones_own_must_not_flip_however_many_flips_are_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(VARIANTS, "onnx-int8", Coarse)
    close_call = {"x": np.array([[0.001, 0.001]], np.float32)}
    manifest = pack_two("own", Linear(0.1, 0.1).eval(), flip_rate=1.0, examples=close_call)
    assert manifest.left_out["onnx-int8"].why.startswith("it answers an example of yours differently: of 1 rows")


@pytest.mark.usefixtures("more_bundles")
@pytest.mark.parametrize("tag", ["digits:v2", "languages:v2", "departures:v2"])
def test_every_variant_of_an_image_a_text_and_a_time_model_passed(tag: str) -> None:
    _, manifest = open_bundle(tag)
    assert not manifest.left_out
    assert list(manifest.variants) == [kind.name for kind in to_pack()]


def screening(targets_of_source: bool) -> Screening:
    """With golden examples far from any doubt, and rows that the source answers all right, or all wrong."""
    evaluation = part(200, 2)
    source = ModuleSource(Linear(0.1, 0.1).eval(), TASK, take(evaluation.inputs, slice(0, 2)))
    sure = {"x": np.array([[9, 9], [-9, -9]], np.float32)}
    targets = evaluation.targets if targets_of_source else 1 - evaluation.targets
    golden = Golden(sure, source.run(sure))
    return Screening(
        source,
        part(64, 1).inputs,
        Labelled(evaluation.inputs, targets),
        source.run(evaluation.inputs),
        golden,
        {},
        1.0,
        Effort(),
        lambda _: None,
    )


def test_a_variant_that_is_significantly_worse_is_left_out(tmp_path: Path) -> None:
    outcome = screening(targets_of_source=True).export(Coarse, tmp_path)
    assert isinstance(outcome, LeftOut)
    assert outcome.why.startswith("it is significantly worse: ")
    assert "0 won, exact McNemar p = " in outcome.why
    assert not list(tmp_path.iterdir())


def test_one_that_is_better_is_kept(tmp_path: Path) -> None:
    outcome = screening(targets_of_source=False).export(Coarse, tmp_path)
    assert not isinstance(outcome, LeftOut)
    assert outcome.parity["evaluation"].answers_flipped > 5
    assert (tmp_path / outcome.file).exists()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Biased, r"^it disagrees with the source \(evaluation\): of 100 rows"),
        (MindsCompany, r"^it disagrees with the source \(batch sizes\): of 2080 rows"),
        (Broken, r"^it cannot be made: no such operator$"),
    ],
)
def test_an_exact_variant_that_disagrees_is_left_out(
    monkeypatch: pytest.MonkeyPatch, kind: type[Onnx], why: str
) -> None:
    monkeypatch.setitem(VARIANTS, "onnx", kind)
    manifest = pack_two(f"exact-{kind.__name__.lower()}", Linear().eval())
    assert "torchscript" in manifest.variants
    assert re.search(why, manifest.left_out["onnx"].why)


def test_what_an_exact_variant_left_out_cannot_be_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "onnx", Broken)
    manifest = pack_two("nothing-to-quantize", Linear().eval())
    assert manifest.left_out["onnx-int8"].why == "it cannot be made: there is no onnx variant to quantize"


def test_scores_that_are_not_finite_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "onnx-int8", NotANumber)
    manifest = pack_two("nan", Linear().eval())
    assert manifest.left_out["onnx-int8"].why == "it gives scores that are not finite (random)"


def test_nothing_is_stored_when_no_variant_that_serves_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnx-int8", "torchscript"):
        monkeypatch.setitem(VARIANTS, name, type("Renamed", (Biased,), {"name": name, "file": f"{name}/model"}))
    with pytest.raises(
        RolloutError, match=r"two:none is refused: no variant agrees with the source.*torchscript: it"
    ):
        pack_two("none", Linear().eval())
    assert not bundle_exists("two:none")


def test_a_quantized_variant_is_held_to_what_was_packed() -> None:
    manifest = pack_two("held", Linear().eval())
    assert not manifest.variants["onnx-int8"].is_exact
    assert manifest.variants["onnx-int8"].parity["golden"].answers_flipped == 0
    assert (
        msgspec.json.decode(msgspec.json.encode(manifest), type=type(manifest), dec_hook=decode_head) == manifest
    )


class Sums(nn.Module):
    """Adds a function of the second input to what the first one says."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear, self.function = Linear(), function

    def forward(self, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.linear(x) + self.function(row)[:, None]
        return logits


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            lambda row: row[:, 1],
            "the module answers NaN or infinity where row.age is missing, which its field allows: put",
        ),
        (
            lambda row: row[:, 0].clamp(max=50).sqrt() * 0,
            r"for [0-9]+ of 256 random inputs, the first of them row [0-9]+: it must",
        ),
        (lambda row: (row[:, 0] - 5).sqrt() * 0, r"for \d+ of 500 calibration inputs, the first of them row \d"),
    ],
    ids=["missing", "random", "calibration"],
)
def test_a_module_that_does_not_answer_all_that_its_fields_allow_is_refused(
    function: Callable[[torch.Tensor], torch.Tensor], words: str
) -> None:
    def with_rows(rows: int, seed: int) -> Labelled:
        few = part(rows, seed)
        numbers = np.random.default_rng(seed).uniform(1, 9, (rows, 2)).astype(np.float32)
        return Labelled({**few.inputs, "row": numbers}, few.targets)

    columns = {"fare": Number(), "age": Number(optional=True if "missing" in words else UNSET)}
    inputs = {"x": Tensor(shape=(2,)), "row": Table(columns=columns)}
    parts = {"calibration": with_rows(500, 1), "evaluation": with_rows(100, 2)}
    with pytest.raises(RolloutError, match=words):
        pack_two("gaps", Sums(function).eval(), inputs=inputs, **parts)
