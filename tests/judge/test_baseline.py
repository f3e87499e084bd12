"""Sketches: counts in bins that add up, whatever comes."""

from __future__ import annotations

import json
import tracemalloc

import msgspec
import numpy as np
import pytest

from rollout.judge.baseline import CATEGORIES, MOST_PLACES, Baseline, Bins
from rollout.judge.features import Feature, number
from tests.judge.drift_simulations import rows


def test_bins_hold_as_many_rows_each_and_what_lies_beyond_has_its_own() -> None:
    bins = Bins.of(number(np.arange(1.0, 101.0), "s"))
    assert [count for count in bins.counts if count] == [10] * 10
    sent = np.array([50.5, 0.0, 101.0, 100_000.0, np.nan, np.inf])
    said = [bins.labels[place] for place in bins.places(sent)]
    assert said == ["50 to 60", "-98 to 1", "100 to 199", "over 9.91e+04", "missing", "not finite"]
    assert all(not bins.counts[place] for place in bins.places(sent)[1:])


def test_what_is_learnt_of_categories_is_one_count_each() -> None:
    bins = Bins.of(Feature(np.array([0.0, 0, 2, np.nan]), ("a", "b", "c")))
    assert dict(zip(bins.labels, bins.counts, strict=True)) == {
        "a": 2,
        "b": 0,
        "c": 1,
        "others": 0,
        "missing": 1,
        "not finite": 0,
        "refused": 0,
    }


def test_rare_categories_share_a_bin() -> None:
    names = tuple(f"c{index}" for index in range(200))
    bins = Bins.of(Feature(np.repeat(np.arange(200.0), np.arange(200)), names))
    assert bins.categories == [f"c{index}" for index in range(200 - CATEGORIES, 200)]
    assert [bins.labels[place] for place in bins.places(np.array([3.0, 199.0, 9_999.0]))] == [
        "others",
        "c199",
        "others",
    ]


def test_sketches_add_up() -> None:
    random = np.random.default_rng(0)
    baseline, live = Baseline.of(rows(300, random)), rows(1_000, random)
    parts = [
        baseline.measure({name: each._replace(values=each.values[start::3]) for name, each in live.items()})
        for start in range(3)
    ]
    assert np.allclose(np.sum(parts, axis=0), baseline.measure(live), rtol=0, atol=1e-9)
    assert baseline.measure(live)[baseline.slices["kind"]].sum() == 1_000
    none = {name: each._replace(values=each.values[:0]) for name, each in live.items()}
    assert not baseline.measure(none).any()


def test_a_baseline_is_the_same_when_it_is_read_again() -> None:
    random = np.random.default_rng(0)
    baseline = Baseline.of(rows(300, random), np.ones(300))
    read = msgspec.json.decode(msgspec.json.encode(baseline), type=Baseline)
    live = rows(100, random)
    assert read == baseline
    assert np.array_equal(read.measure(live), baseline.measure(live))


def test_refused_rows_count_for_what_they_were_refused_for() -> None:
    baseline = Baseline.of({"image.brightness": number(np.arange(20.0)), "age": number(np.arange(20.0))})
    sketch = baseline.refused({"image": 3, "age": 2, "unknown": 9})
    assert sketch.sum() == 5
    for name, count in {"image.brightness": 3, "age": 2}.items():
        bins = baseline.features[name]
        assert sketch[baseline.slices[name]][bins.place("refused")] == count


def test_a_few_rows_are_not_looked_at_together() -> None:
    random = np.random.default_rng(0)
    assert Baseline.of(rows(99, random)).joint is None
    assert Baseline.of(rows(100, random)).joint is not None


def test_a_sketch_has_a_bound() -> None:
    random = np.random.default_rng(0)
    wide = {f"x{index}": number(random.normal(size=200)) for index in range(500)}
    baseline = Baseline.of(wide)
    assert baseline.size <= MOST_PLACES
    assert baseline.left_out == 500 - len(baseline.features) > 0
    assert len(msgspec.json.encode(baseline)) < 256 * 1024


@pytest.mark.parametrize(
    "values",
    [np.full(50, 3.0), np.full(50, np.nan), np.array([1.0]), np.array([0.0, np.inf, -np.inf])],
    ids=["constant", "missing", "one", "infinite"],
)
def test_any_column_has_bins(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    baseline = Baseline.of({"x": number(values), "y": number(values)})
    sketch = baseline.measure({"x": number(np.array([3.0, 7.0, np.nan, 1e300])), "y": number(np.zeros(4))})
    assert sketch[baseline.slices["x"]].sum() == 4
    assert sum(baseline.features["x"].counts) == len(values)
    assert np.isfinite(sketch).all()


def test_the_median_is_that_of_the_rows() -> None:
    random = np.random.default_rng(0)
    values = np.exp(random.normal(size=2_000))
    bins = Bins.of(number(values))
    assert bins.median(np.array(bins.counts, float)) == pytest.approx(np.median(values), rel=0.02)
    whole = Bins.of(number(random.poisson(2.5, 500)))
    assert whole.median(np.array(whole.counts, float)) == 2


def test_a_median_below_all_that_the_evaluation_had() -> None:
    bins = Bins.of(number(np.linspace(0, 100, 1000)))
    sent = bins.places(np.full(50, -30.0))
    median = bins.median(np.bincount(sent, minlength=bins.size).astype(np.float64))
    assert bins.labels[sent[0]] == "-100 to 0"
    assert median == pytest.approx(-50)


def test_bins_whose_rows_all_lie_beyond_have_words() -> None:
    assert Bins(counts=[0, 0, 3, 0, 0, 0], edges=[1.0, 2.0]).in_words == "2 (2 to 2)"
    assert Bins(counts=[3, 0, 0, 0, 0, 0], edges=[1.0, 2.0]).in_words == "1 (1 to 1)"


TINY = {"counts": [1, 0, 0, 0]}
JOINT = {"features": 1, "mean": [0.0] * 64, "axes": [[0.0] * 64], "variances": [0.1]}


@pytest.mark.parametrize(
    "odd",
    [
        {"rows": 10**400},
        {"features": {"x": TINY | {"counts": [10**400, 0, 0, 0]}}},
        {"features": {"x": TINY | {"right": [1e308, 0.0, 0.0, 0.0]}}},
        {"features": {"x": TINY | {"period_s": -1.0}}},
        {"features": {"x": {"counts": [0, 0, 0, 0, 0, 1], "categories": ["a", "b"], "codes": [3, 3]}}},
        {"joint": JOINT | {"seed": -1}},
        {"joint": JOINT | {"seed": 2**32}},
        {"joint": JOINT | {"mean": [1e308] * 64}},
        {"joint": JOINT | {"axes": [[1e308] * 64]}},
        {"joint": JOINT | {"variances": [1e308]}},
        {"joint": JOINT | {"variances": [1e-300]}},
    ],
)
def test_odd_numbers_of_a_bundle_from_elsewhere_are_refused(odd: dict[str, object]) -> None:
    plain = {"rows": 1, "features": {"x": TINY}, "joint": JOINT}
    assert msgspec.json.decode(msgspec.json.encode(plain), type=Baseline).size == 4 + 2
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(plain | odd), type=Baseline)


def test_large_codes_take_no_room() -> None:
    bins = Bins(counts=[1, 1, 0, 0, 0, 0], categories=["a", "b"], codes=[0, 999_999])
    tracemalloc.start()
    sent = np.array([0.0, 999_999, 3, -1, 1e300, np.nan])
    assert bins.places(sent).tolist() == [0, 1, 2, 2, 2, 3]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
