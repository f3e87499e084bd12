"""What predictions cost: the formula, the comparison, and what can be measured where."""

from __future__ import annotations

import math
import sys

import msgspec
import onnxruntime
import pytest

from rollout import cost
from rollout.bundle.schema import Arrays
from rollout.bundle.store import open_bundle
from rollout.bundle.variants import OnnxInt8
from rollout.cost import (
    BATCH_SIZES,
    Point,
    at_best_size,
    compare_costs,
    cost_per_million,
    measure_speeds,
    shown_cost,
)
from rollout.errors import BundleError
from rollout.heads import Scores
from tests.bundle.two import Linear, pack_two

POINTS = [
    Point("onnx", "cpu", 1, 1_000.0),
    Point("onnx", "cpu", 32, 10_000.0),
    Point("onnx", "cpu", 64, 9_000.0),
    Point("export", "cpu", 64, 4_000.0),
]
ON_GPU = [Point("torchscript", "cuda", 64, 2_000_000.0), Point("export", "cuda", 64, 3_000_000.0)]


def test_the_formula() -> None:
    # An hour at 1000 rows a second is 3.6 million predictions.
    assert cost_per_million(3.6, 1000) == pytest.approx(1.0)
    assert cost_per_million(0.04, 10_000) == pytest.approx(0.0011111111)
    assert cost_per_million(2.5, 1_000_000) == pytest.approx(0.00069444444)


@pytest.mark.parametrize(
    ("cost", "shown"),
    [(0.0000702, "0.000070"), (0.00111, "0.0011"), (0.5, "0.50"), (1.0, "1.0"), (12.3, "12"), (1234.0, "1,234")],
)
def test_costs_are_written_with_two_digits_that_count(cost: float, shown: str) -> None:
    assert shown_cost(cost) == shown


def test_the_best_size_of_each_contender() -> None:
    best = at_best_size(POINTS + ON_GPU)
    assert [(point.contender, point.batch_size) for point in best] == [
        ("onnx on cpu", 32),
        ("export on cpu", 64),
        ("torchscript on cuda", 64),
        ("export on cuda", 64),
    ]


def test_the_cheapest_is_compared_with_the_next_one() -> None:
    assert compare_costs(POINTS, {}) == []
    assert compare_costs(POINTS, {"cpu": 0.04}) == [
        "onnx on cpu at batches of 32 is the cheapest: 0.0011 per million predictions; "
        "export on cpu costs 2.5 times as much."
    ]
    assert compare_costs(POINTS[:3], {"cpu": 0.04}) == [
        "onnx on cpu at batches of 32 is the cheapest: 0.0011 per million predictions."
    ]
    twins = [Point("onnx", "cpu", 1, 1000.0), Point("export", "cpu", 1, 999.0)]
    assert "export on cpu costs about as much." in compare_costs(twins, {"cpu": 0.04})[0]


def test_a_core_and_a_gpu_are_compared_with_each_other() -> None:
    (sentence,) = compare_costs(POINTS + ON_GPU, {"cpu": 0.04, "cuda": 2.5})
    assert sentence == (
        "export on cuda at batches of 64 is the cheapest: 0.00023 per million predictions; "
        "onnx on cpu costs 4.8 times as much."
    )
    (sentence,) = compare_costs(POINTS + ON_GPU, {"cpu": 0.004, "cuda": 2.5})
    assert sentence.startswith("onnx on cpu at batches of 32 is the cheapest")
    assert sentence.endswith("export on cuda costs 2.1 times as much.")


def test_without_a_gpu_its_price_says_how_fast_one_would_have_to_be() -> None:
    _, sentence = compare_costs(POINTS, {"cpu": 0.04, "cuda": 2.5})
    assert sentence == (
        "No GPU was found here that a variant can use; one at 2.5 an hour would be cheaper above "
        "625,000 rows per second."
    )
    assert cost_per_million(2.5, 625_000) == pytest.approx(cost_per_million(0.04, 10_000))
    assert compare_costs(POINTS, {"cuda": 2.5}) == ["No GPU was found here that a variant can use."]


def test_every_variant_at_every_size(bundles: str) -> None:
    folder, manifest = open_bundle("digits:v2")
    points, not_measured, _ = measure_speeds(folder, manifest, seconds=0)
    on_cpu = {(point.variant, point.batch_size) for point in points if point.device == "cpu"}
    assert on_cpu == {(name, size) for name in manifest.variants for size in BATCH_SIZES}
    assert all(0 < point.rows_per_second < math.inf for point in points)
    assert not not_measured


def test_threads_are_looked_at_where_a_row_is_costly(monkeypatch: pytest.MonkeyPatch) -> None:
    pack_two("threads", Linear().eval(), variants=["onnx", "torchscript"])
    folder, manifest = open_bundle("two:threads")
    monkeypatch.setattr(cost, "usable_cores", lambda: 2)
    assert not measure_speeds(folder, manifest, seconds=0).threads
    monkeypatch.setattr(cost, "COSTLY", 0.0)
    found = measure_speeds(folder, manifest, seconds=0).threads
    assert list(found) == ["onnx"], "torch has the threads of its process"
    assert found["onnx"].cores == 2
    assert found["onnx"].together is not None
    assert min(found["onnx"].apart.rate, found["onnx"].together.rate) > 0
    monkeypatch.setattr(cost, "usable_cores", lambda: 1)
    assert not measure_speeds(folder, manifest, seconds=0).threads


def test_what_cannot_be_loaded_says_why_and_the_rest_is_measured(
    bundles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = open_bundle("digits:v2")
    monkeypatch.setitem(sys.modules, "torch", None)
    points, not_measured, _ = measure_speeds(folder, manifest, seconds=0)
    assert {point.variant for point in points} == {"onnx", "onnx-int8"}
    assert not_measured.keys() == {"torchscript on cpu", "export on cpu"}
    for name, why in not_measured.items():
        assert why.startswith(f"the {name.split()[0]} variant needs torch")
        assert "pip install 'rollout[pack]'" in why
    only_torch = {name: manifest.variants[name] for name in ("torchscript", "export")}
    with pytest.raises(BundleError, match=r"torchscript variant needs torch.*; the export variant needs torch"):
        measure_speeds(folder, msgspec.structs.replace(manifest, variants=only_torch), seconds=0, is_trusted=True)


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="it could be used here"
)
def test_a_gpu_that_onnxruntime_cannot_use_is_no_processor_in_disguise(
    bundles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = open_bundle("digits:v2")
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    points, not_measured, _ = measure_speeds(folder, manifest, seconds=0)
    assert {point.device for point in points if point.variant == "onnx"} == {"cpu"}
    assert not_measured == dict.fromkeys(
        ["onnx on cuda", "onnx-int8 on cuda"], "onnxruntime cannot use cuda here"
    )


def test_a_variant_that_does_not_run_says_why(bundles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: OnnxInt8, inputs: Arrays) -> Scores:
        raise RuntimeError("no kernel image is available")

    folder, manifest = open_bundle("digits:v2")
    monkeypatch.setattr(OnnxInt8, "run", fail)
    points, not_measured, _ = measure_speeds(folder, manifest, seconds=0)
    assert {point.variant for point in points} == {"onnx", "torchscript", "export"}
    assert not_measured["onnx-int8 on cpu"] == (
        "digits:v2: the onnx-int8 variant does not run on cpu: no kernel image is available"
    )
