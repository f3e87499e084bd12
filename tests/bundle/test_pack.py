"""Packing compares every variant with its source, and stores nothing that disagrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rollout import Classification, Labelled, Regression, RolloutError, Tensor
from rollout.bundle import verify
from rollout.bundle.effort import EVERY_SIZE
from rollout.bundle.golden import read_golden, write_golden
from rollout.bundle.manifest import Manifest, hash_files, read_manifest, write_manifest
from rollout.bundle.parity import MAX_BATCH, compare, run_in_batches, run_in_sizes
from rollout.bundle.store import bundle_path, open_bundle
from rollout.bundle.variants import to_pack
from rollout.bundle.verify import check_golden, choose_variant, load_variant, verify_bundle
from rollout.config import Settings
from rollout.inference.version import LoadedVersion
from tests.bundle.two import TASK, Linear, Two, pack_two, part


@pytest.fixture
def bundle() -> tuple[Path, Manifest]:
    try:
        return open_bundle("two:fixture")
    except RolloutError:
        pack_two("fixture", Linear().eval())
        return open_bundle("two:fixture")


def test_packs_every_variant_and_verifies_from_disk() -> None:
    steps: list[str] = []
    manifest = pack_two("v1", Linear().eval(), on_step=steps.append, lineage={"seeds": {"torch": 3}})
    assert set(manifest.variants) == {kind.name for kind in to_pack()}
    assert not manifest.left_out
    assert sum(line.startswith("exporting") for line in steps) == len(manifest.variants)
    assert manifest.metrics["accuracy"] == 1
    assert manifest.metrics["calibration_error"] <= manifest.metrics["calibration_error_before"]
    assert manifest.lineage["seeds"] == {"torch": 3}
    assert manifest.lineage["environment"]["packages"]["torch"].startswith("2.13")
    folder, read = open_bundle("two:v1")
    assert read == manifest
    for name, found in verify_bundle(folder, manifest).items():
        (parity,) = found.values()
        assert parity.is_exact or not manifest.variants[name].is_exact
        assert parity.answers_flipped == 0
        assert parity.rows >= 16
    for variant in manifest.variants.values():
        assert set(variant.parity) == {"evaluation", "golden", "random", "extreme", "batch sizes"}


def test_the_module_is_copied_not_changed() -> None:
    module = Linear().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    pack_two("v1-copied", module)
    assert all((before[name] == tensor).all() for name, tensor in module.state_dict().items())


def test_a_version_never_changes() -> None:
    pack_two("v2")
    with pytest.raises(RolloutError, match=r"two:v2 exists already and a version never changes"):
        pack_two("v2")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": Classification(labels=["a", "b", "c"])}, r"3 labels need logits of shape \(rows, 3\)"),
        ({"task": Classification(labels=["one"])}, "targets must be whole numbers from 0 to 0"),
        ({"inputs": {"y": Tensor(shape=(2,))}}, "expected arrays for"),
        ({"inputs": {"x": Tensor(shape=(3,))}}, "expected shape"),
        ({"evaluation": Labelled(part(9, 0).inputs, np.zeros(8, int))}, "different numbers of rows"),
        ({"evaluation": Labelled(part(9, 0).inputs, np.zeros(9))}, "targets must be whole numbers from 0 to 1"),
        ({"examples": {"x": np.zeros((1, 3), np.float32)}}, "expected shape"),
        (
            {"task": Classification(labels=["a", "b"], review_threshold=-1)},
            "a review_threshold of -1 is no confid",
        ),
        (
            {"task": Regression(), "evaluation": Labelled(part(9, 0).inputs, np.full(9, np.nan))},
            "targets must be finite numbers",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        pack_two("v5", **changes)


def test_examples_of_ones_own_become_golden() -> None:
    mine = np.array([[0.25, 0.5], [-3, 2]], np.float32)
    pack_two("v3", examples={"x": mine})
    folder, _ = open_bundle("two:v3")
    assert read_golden(folder).inputs["x"][-2:].tolist() == mine.tolist()


def test_parity_counts_flips_and_nan() -> None:
    task = msgspec.structs.replace(TASK, review_threshold=0.7)
    expected = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)
    got = np.array([[0.4, 0.6], [0.2, 0.8], [0.5, 0.5]], np.float32)
    parity = compare(task, expected, got)
    assert (parity.answers_flipped, parity.reviews_flipped) == (1, 1)
    assert not parity.is_exact
    assert "of 3 rows 1 get another answer" in str(parity)
    got[2] = np.nan
    assert compare(task, expected, got).largest_difference == np.inf


def test_a_regression_flips_when_it_moves_by_a_tenth_of_its_interval() -> None:
    task = Regression(scale=2.0)
    expected = np.array([[1, 1], [1, 1], [1, 1]], np.float32)
    got = np.array([[1.09, 1], [1.11, 1], [np.nan, 1]], np.float32)
    assert task.flipped(expected, got).tolist() == [False, True, True]
    assert compare(task, expected[:1], got[:1]).largest_difference == pytest.approx(0.045)


def test_batches_of_every_size_go_round_the_rows() -> None:
    sizes = []

    def run(inputs: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        sizes.append(len(inputs["x"]))
        return inputs["x"]

    numbers = np.arange(70, dtype=np.float32)[:, None]
    assert np.array_equal(run_in_batches(run, {"x": numbers}), numbers)
    assert sizes == [64, 6]
    sizes.clear()
    rows, scores = run_in_sizes(run, {"x": numbers}, EVERY_SIZE)
    assert sizes == list(range(1, MAX_BATCH + 1))
    assert set(rows) == set(range(70))
    assert np.array_equal(scores[:, 0], rows)


def test_a_variant_that_is_not_there_is_named(bundle: tuple[Path, Manifest]) -> None:
    with pytest.raises(RolloutError, match="two:fixture has no variant tensorrt; it has export, onnx, onnx-int8"):
        load_variant(*bundle, "tensorrt")


def test_a_variant_that_was_left_out_says_why() -> None:
    manifest = pack_two("v6", Two().eval())
    folder, _ = open_bundle("two:v6")
    with pytest.raises(RolloutError, match=r"onnx-int8 was left out: .* no matrix product to quantize"):
        load_variant(folder, manifest, "onnx-int8")


@pytest.mark.parametrize("file", ["onnx/model.onnx", "torchscript/model.pt", "golden.npz"])
def test_a_flipped_byte_is_refused(bundle: tuple[Path, Manifest], file: str) -> None:
    path = bundle[0] / file
    data = path.read_bytes()
    path.write_bytes(data[:99] + bytes([data[99] ^ 1]) + data[100:])
    with pytest.raises(RolloutError, match=f"two:fixture is refused: {file} was changed after packing"):
        open_bundle("two:fixture")
    path.write_bytes(data)


def test_swapped_golden_examples_are_refused_even_under_a_new_hash() -> None:
    pack_two("v7", Linear().eval())
    folder = bundle_path("two:v7")
    golden = read_golden(folder)
    no, yes = golden.scores[:, 0].argmax(), golden.scores[:, 1].argmax()
    golden.scores[[no, yes]] = golden.scores[[yes, no]]
    write_golden(folder, golden)
    write_manifest(folder, msgspec.structs.replace(read_manifest(folder), hashes=hash_files(folder)))
    folder, manifest = open_bundle("two:v7")
    for name in manifest.variants:
        variant = load_variant(folder, manifest, name, is_trusted=True)
        with pytest.raises(
            RolloutError, match=f"two:v7 is refused: its {name} variant disagrees with the source"
        ):
            check_golden(read_golden(folder), manifest, name, variant)
    with pytest.raises(RolloutError, match=r"its onnx variant disagrees.*; .*its torchscript variant disagrees"):
        choose_variant(folder, manifest, read_golden(folder), ["onnx", "torchscript"], is_trusted=True)


def test_a_manifest_that_promises_nothing_of_a_variant_is_refused(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    silent = msgspec.structs.replace(manifest.variants["onnx-int8"], parity={})
    hostile = msgspec.structs.replace(manifest, variants={**manifest.variants, "onnx-int8": silent})
    variant = load_variant(folder, hostile, "onnx-int8")
    with pytest.raises(RolloutError, match="does not say how far the onnx-int8 variant may be"):
        check_golden(read_golden(folder), hostile, "onnx-int8", variant)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [({"onnx": 1.0, "onnx-int8": 0.95}, "onnx"), ({"onnx": 1.0, "onnx-int8": 0.5}, "onnx-int8")],
)
def test_the_fastest_variant_serves_if_it_is_clearly_faster(
    bundle: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], chosen: str
) -> None:
    monkeypatch.setattr(verify, "_race", lambda *_: seconds)
    choice = choose_variant(*bundle, read_golden(bundle[0]), ["onnx", "onnx-int8", "tensorrt"])
    assert choice.name == chosen == choice.variant.name
    assert choice.seconds == seconds
    assert list(choice.refused) == ["tensorrt"]


def test_no_variant_falls_back_on_the_processor(bundle: tuple[Path, Manifest]) -> None:
    with pytest.raises(RolloutError, match=r"CUDAExecutionProvider.*torch.cuda.is_available\(\) is False"):
        choose_variant(*bundle, read_golden(bundle[0]), ["onnx", "torchscript"], device="cuda")
    with pytest.raises(RolloutError, match="CUDAExecutionProvider"):
        LoadedVersion("two", "fixture", Settings(device="cuda"))


def test_every_variant_that_passed_is_timed(bundle: tuple[Path, Manifest]) -> None:
    choice = choose_variant(*bundle, read_golden(bundle[0]), ["onnx", "torchscript"])
    assert set(choice.seconds) == {"onnx", "torchscript"}
    assert min(choice.seconds.values()) > 0
    assert not choice.refused
