"""What a bundle keeps of its evaluation part, and what every kind of field is looked at by."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models.digits import data
from rollout import Audio, Category, Image, Number, Table, Tensor, Text, Time
from rollout.bundle.baseline import FILE_NAME, features_of, read_baseline
from rollout.bundle.columns import ragged
from rollout.bundle.fields import Field
from rollout.bundle.parity import run_in_batches
from rollout.bundle.store import open_bundle
from rollout.bundle.verify import load_variant
from rollout.config import Settings
from rollout.errors import BundleError
from rollout.inference import version
from rollout.inference.version import LoadedVersion
from rollout.judge.baseline import Baseline
from rollout.judge.drift import Window, judge_drift
from rollout.judge.features import Features, named, number
from tests.judge.drift_simulations import rows, rows_until_seen

PORTS = Category(values=("C", "Q", "S"), optional=True)
SOUNDS = ragged([np.sin(np.arange(size, dtype=np.float32) / 5) for size in (16_000, 8_000, 4)])
LONG = ragged([np.arange(size, dtype=np.float32).reshape(-1, 2) for size in (2, 40, 4)])
# A field, a column of three rows, and the names that it is looked at by with what the first row has.
KINDS: dict[str, tuple[Field, NDArray[Any], dict[str, float]]] = {
    "number": (Number(optional=True), Number(optional=True).encode([2, None, 3]), {"": 2}),
    "time": (
        Time(optional=True),
        Time(optional=True).encode(["2026-11-29T16:30:00Z", None, "1970-01-01T00:00:00Z"]),
        {"hour": 16, "weekday": 6},
    ),
    "text": (
        Text(optional=True),
        Text(optional=True).encode(["Zwölf 12", None, "日本"]),
        {"characters": 8, "words": 2, "letters": 4 / 8, "digits": 2 / 8, "beyond_ascii": 1 / 8},
    ),
    "category": (PORTS, PORTS.encode(["S", None, "C"]), {"": 2}),
    "table": (
        Table(columns={"age": Number(optional=True), "port": PORTS}),
        Table(columns={"age": Number(optional=True), "port": PORTS}).encode([{"age": 2, "port": "Q"}, {}, {}]),
        {"age": 2, "port": 1},
    ),
    "image": (
        Image(height=1, width=2),
        np.array([[[0, 255]], [[0, 0]], [[255, 255]]], np.uint8),
        {"brightness": 0.5, "contrast": 0.5, "sharpness": 1},
    ),
    "colour": (
        Image(height=1, width=1, channels=3),
        np.array([[[[255, 0, 0]]], [[[0, 0, 0]]], [[[0, 0, 255]]]], np.uint8),
        {"brightness": 1 / 3, "contrast": np.sqrt(2) / 3, "sharpness": 0, "warmth": 1},
    ),
    "audio": (Audio(), SOUNDS, {"duration": 1, "loudness": -3.01, "loudest": 1, "crossings": 1_018}),
    "few numbers": (Tensor(shape=(2,)), np.array([[1, 2], [3, 4], [5, 6]], np.float32), {"0": 1, "1": 2}),
    "many numbers": (
        Tensor(shape=(20,), nan=True),
        np.array([[np.nan, *range(19)], [np.nan] * 20, range(20)], np.float32),
        {"mean": 9, "deviation": np.sqrt(30), "smallest": 0, "largest": 18, "missing_share": 0.05},
    ),
    "any length": (
        Tensor(shape=("steps", 2), longest=50),
        LONG,
        {"length": 1, "mean": 0.5, "deviation": 0.5, "smallest": 0, "largest": 1, "missing_share": 0},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_is_looked_at_by(kind: str) -> None:
    field, column, first = KINDS[kind]
    found = field.features(column)
    assert {name: each.values[0] for name, each in found.items()} == pytest.approx(first, rel=1e-2)
    assert all(each.values.shape == (3,) and each.values.dtype == np.float64 for each in found.values())
    parts = [field.features(column[:0]), field.features(column[:1]), field.features(column[1:])]
    for name, each in found.items():
        together = np.concatenate([part[name].values for part in parts])
        assert np.allclose(together, each.values, rtol=1e-6, equal_nan=True), name
    baseline = Baseline.of(named("field", found))
    sketch = baseline.measure(named("field", found))
    assert all(sketch[part].tolist() == baseline.features[name].counts for name, part in baseline.slices.items())


def test_every_kind_of_field_is_among_them() -> None:
    assert {type(field) for field, _, _ in KINDS.values()} == set(get_args(Field))


def test_what_is_missing_is_told_as_missing() -> None:
    for kind in ("number", "time", "text", "category", "table"):
        field, column, _ = KINDS[kind]
        found = field.features(column)
        assert all(np.isnan(each.values[1]) for each in found.values()), kind
        assert not any(np.isnan(each.values[0]) for each in found.values()), kind


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images of the evaluation part, and all others."""
    found = data.load()
    return found.evaluation.inputs["image"], np.concatenate(
        [found.train.inputs["image"], found.calibration.inputs["image"]]
    )


def looked_at(images: NDArray[np.uint8]) -> Features:
    return named("image", Image(height=32, width=32).features(images))


@pytest.mark.parametrize(("brighter", "most"), [(40, 25), (20, 60)])
def test_digits_that_are_brighter_are_told(
    digits: tuple[NDArray[np.uint8], NDArray[np.uint8]], brighter: int, most: int
) -> None:
    evaluated, others = digits
    random = np.random.default_rng(brighter)
    drawn: list[NDArray[np.uint8]] = []

    def draw(count: int) -> Features:
        drawn[:] = [others[random.integers(0, len(others), count)]]
        return looked_at(drawn[0])

    def change(_: Features) -> Features:
        return looked_at(np.clip(drawn[0].astype(int) + brighter, 0, 255).astype(np.uint8))

    count, moved = rows_until_seen(Baseline.of(looked_at(evaluated)), draw, change)
    assert count <= most
    assert {"image.brightness", "together"} & set(moved)


def test_the_other_digits_are_no_drift(digits: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    evaluated, others = digits
    baseline = Baseline.of(looked_at(evaluated))
    found = judge_drift(baseline, [Window(0.0, 3_600.0, baseline.measure(looked_at(others)))], packed_at=0.0)
    assert found.state == "quiet"
    assert max(each.e_value for each in found.features) < 0


def test_a_bundle_has_one(bundles: str) -> None:
    folder, manifest = open_bundle("digits:v2")
    baseline = read_baseline(folder)
    assert baseline is not None
    assert FILE_NAME in manifest.hashes
    assert baseline.rows == manifest.metrics["evaluation_rows"]
    assert {*baseline.features} == {
        "image.brightness",
        "image.contrast",
        "image.sharpness",
        "answer.label",
        "answer.confidence",
    }
    label = baseline.features["answer.label"]
    assert label.categories == list(manifest.task.classes)
    assert sum(label.right) / sum(label.counts) == pytest.approx(manifest.metrics["accuracy"])
    assert (folder / FILE_NAME).stat().st_size < 64 * 1024


def test_what_it_says_is_what_its_variant_answers(bundles: str) -> None:
    folder, manifest = open_bundle("digits:v2")
    baseline, evaluation = read_baseline(folder), data.load().evaluation
    assert baseline is not None
    scores = run_in_batches(load_variant(folder, manifest, "onnx").run, evaluation.inputs)
    numbers = manifest.task.numbers(scores)
    sketch = baseline.measure(features_of(manifest.inputs, manifest.task, evaluation.inputs, numbers))
    for name, part in baseline.slices.items():
        assert np.abs(sketch[part] - baseline.features[name].counts).max() <= 2, name  # the last digits differ


def test_one_of_other_features_stops_nobody_from_serving(
    bundles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(home=tmp_path)
    assert LoadedVersion("digits", "v2", settings).baseline is not None
    other = Baseline.of({"image.hue": number(np.ones(3)), "answer.label": number(np.ones(3))})
    monkeypatch.setattr(version, "read_baseline", lambda _: other)
    assert LoadedVersion("digits", "v2", settings).baseline is None
    assert "the baseline of digits:v2 is of image.hue, which its rows do not have" in caplog.text


def test_an_older_bundle_has_none(tmp_path: Path) -> None:
    assert read_baseline(tmp_path) is None


def broken(name: str) -> bytes:
    """Returns a baseline in which something is wrong."""
    random = np.random.default_rng(0)
    whole = msgspec.to_builtins(Baseline.of(rows(100, random)))
    match name:
        case "another kind":
            whole["rows"] = "many"
        case "counts":
            whole["features"]["kind"]["counts"].pop()
        case "codes":
            whole["features"]["kind"]["codes"][0] = 10**12
        case "edges":
            whole["features"]["income"]["edges"].reverse()
        case "axes":
            whole["joint"]["axes"][0].pop()
        case "together":
            whole["joint"]["features"] = 3
        case "nothing":
            whole["features"] = {}
        case "deep":
            return b'{"rows":1,"more":' + b"[" * 100_000
    return msgspec.json.encode(whole)


@pytest.mark.parametrize(
    "name", ["another kind", "counts", "codes", "edges", "axes", "together", "nothing", "deep"]
)
def test_a_broken_one_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(broken(name))
    with pytest.raises(BundleError, match=r"baseline\.json is no baseline: .*; pack the version again"):
        read_baseline(tmp_path)
