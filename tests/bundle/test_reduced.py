"""Half precision is a variant with its own promise, and each device has its own row: a second «device» stands in."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from rollout.bundle import memory, variants, verify
from rollout.bundle.golden import Golden, read_golden
from rollout.bundle.manifest import Manifest
from rollout.bundle.memory import free_memory, taken_by
from rollout.bundle.parity import ELSEWHERE, TOLERANCE
from rollout.bundle.schema import Arrays
from rollout.bundle.store import open_bundle
from rollout.bundle.variants import VARIANTS, Onnx, OnnxFp16
from rollout.bundle.verify import check_golden, choose_variant, load_variant, servable
from rollout.errors import BundleError
from rollout.heads import Scores
from tests.bundle.two import Linear, pack_two

HALF = ["onnx-fp16", "torchscript-fp16", "torchscript-bf16"]
TWIN = "twin"


class OnTwin(Onnx):
    """ONNX on a device that rounds otherwise, by as much as ``off`` where it is least sure."""

    off = 0.0045

    @classmethod
    def devices(cls) -> list[str]:
        return ["cpu", TWIN]

    def __init__(self, path: Path, threads: int = 1, device: str = "cpu") -> None:
        super().__init__(path, threads)
        self._off = self.off if device == TWIN else 0.0

    def run(self, inputs: Arrays) -> Scores:
        scores = super().run(inputs)
        far = np.float32(4 * self._off) * scores.prod(1, keepdims=True) * np.array([-1, 1], np.float32)
        return np.asarray(scores + far)


class HalfOnTwin(OnTwin, OnnxFp16):
    """Half precision there."""


@pytest.fixture(scope="module")
def half() -> tuple[Path, Manifest]:
    pack_two("half", Linear(0.3, 0.3).eval(), variants=["onnx", *HALF])
    return open_bundle("two:half")


def test_half_precision_is_held_to_decisions(half: tuple[Path, Manifest]) -> None:
    folder, manifest = half
    assert set(manifest.variants) == {"onnx", *HALF}
    golden = read_golden(folder)
    for name in HALF:
        promised = manifest.variants[name]
        assert not promised.is_exact
        assert promised.parity["evaluation"].largest_difference > 1e-6, "it computes in single precision"
        assert promised.parity["evaluation"].answers_flipped == 0
        scores = load_variant(folder, manifest, name).run(golden.inputs)
        assert scores.dtype == np.float32
        moved = Golden(golden.inputs, golden.scores + np.float32(0.2))
        with pytest.raises(BundleError, match=f"its {name} variant disagrees with the source module: of"):
            check_golden(moved, manifest, name, load_variant(folder, manifest, name))


def test_it_is_raced_with_the_others_and_left_out_where_it_is_not_faster(
    half: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = read_golden(half[0])
    choice = choose_variant(*half, golden, ["onnx", "onnx-fp16"])
    assert set(choice.seconds) == {"onnx", "onnx-fp16"}
    monkeypatch.setattr(verify, "_race", lambda *_: {"onnx": 1.0, "onnx-fp16": 2.0})
    assert choose_variant(*half, golden, ["onnx", "onnx-fp16"]).name == "onnx"


def test_a_variant_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(BundleError, match="there is no variant fp8; there are onnx,"):
        pack_two("unknown", variants=["fp8"])


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> type[OnTwin]:
    monkeypatch.setitem(VARIANTS, "onnx", OnTwin)
    return OnTwin


def test_another_device_has_its_own_row_made_where_it_is(twin: type[OnTwin]) -> None:
    packed = pack_two("twin", Linear(0.3, 0.3).eval(), variants=["onnx"]).variants["onnx"]
    assert packed.parity["golden"].largest_difference < TOLERANCE
    there = packed.elsewhere[TWIN]
    assert TOLERANCE < there.largest_difference < ELSEWHERE == there.tolerance
    assert there.answers_flipped == 0


def test_it_serves_there_though_its_scores_are_further_off_than_here(
    half: tuple[Path, Manifest], twin: type[OnTwin]
) -> None:
    """Of a bundle that was packed where there was no such device: the golden examples make the row."""
    assert not half[1].variants["onnx"].elsewhere
    choice = choose_variant(*half, read_golden(half[0]), ["onnx"], device=TWIN)
    assert TOLERANCE < choice.parity.largest_difference < ELSEWHERE


def test_a_tie_there_is_named_and_another_decision_is_refused(
    half: tuple[Path, Manifest], twin: type[OnTwin], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = half
    golden = read_golden(folder)
    there = load_variant(folder, manifest, "onnx", device=TWIN)
    tied = np.array([[0.0, -0.001]], np.float32)
    with_tie = Golden({"x": tied}, load_variant(folder, manifest, "onnx").run({"x": tied}))
    assert check_golden(with_tie, manifest, "onnx", there, TWIN).ties == [0]
    with pytest.raises(BundleError, match="disagrees with the source module: of 1 rows"):
        check_golden(with_tie, manifest, "onnx", there)  # as here it would be
    monkeypatch.setattr(OnTwin, "off", 0.05)
    with pytest.raises(BundleError, match="disagrees with the source module on twin: of"):
        choose_variant(folder, manifest, golden, ["onnx"], device=TWIN)


def test_half_precision_is_compared_on_the_device_that_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "onnx-fp16", HalfOnTwin)
    packed = pack_two("half-twin", Linear(0.3, 0.3).eval(), variants=["onnx", "onnx-fp16"]).variants["onnx-fp16"]
    assert packed.device == TWIN
    assert set(packed.elsewhere) == {"cpu"}
    assert packed.parity["golden"].largest_difference > packed.elsewhere["cpu"].largest_difference


def test_the_manifest_says_what_a_variant_takes() -> None:
    _, grown = taken_by(lambda: np.ones(64 * 1024**2, np.uint8), "cpu")
    assert grown > 60 * 1024**2
    assert free_memory("cpu")


def card(free: int) -> Any:
    cuda = SimpleNamespace(is_available=lambda: True, mem_get_info=lambda: (free, 2 * free))
    return SimpleNamespace(cuda=cuda)


def test_what_does_not_fit_on_a_card_is_refused_and_in_memory_it_is_said(
    half: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, manifest = half
    large = msgspec.structs.replace(manifest.variants["onnx"], memory=2000 * 1024**2)
    manifest = msgspec.structs.replace(manifest, variants={"onnx": large})
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "torch", card(500 * 1024**2))
        with pytest.raises(BundleError, match="takes some 2,000 MiB on cuda, where 500 MiB are free: let fewer"):
            load_variant(folder, manifest, "onnx", device="cuda")
    monkeypatch.setattr(verify, "free_memory", lambda _: 100 * 1024**2)
    load_variant(folder, manifest, "onnx")
    assert "takes some 2,000 MiB on cpu, where 100 MiB are free" in caplog.text


def test_the_limit_of_a_container_counts_without_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "max": "1000000",
        "current": "900000",
        "stat": "anon 100000\nfile 800000",
    }.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "own_cgroups", lambda: [tmp_path])
    assert free_memory("cpu") == 900000


def test_on_a_card_whatever_can_use_it_is_raced(
    half: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert servable(half[1]) == ("onnx", "onnx-fp16")
    assert servable(half[1], device="cuda") == ("onnx", *HALF)  # none can, which they say themselves
    monkeypatch.setattr(variants, "gpu_name", lambda: "NVIDIA H100")
    assert servable(half[1], device="cuda") == ("torchscript-fp16", "torchscript-bf16")


def test_a_device_on_which_a_variant_does_not_run_has_no_row(
    twin: type[OnTwin], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnTwin, "off", "broken")
    packed = pack_two("no-twin", Linear(0.3, 0.3).eval(), variants=["onnx"]).variants["onnx"]
    assert not packed.elsewhere
