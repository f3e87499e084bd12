"""What moved, since when and how far; and quiet where nothing did, however often one looks."""

from __future__ import annotations

import math
from functools import partial

import msgspec
import numpy as np
import pytest
from scipy.special import gammaln

from rollout.judge.baseline import Baseline
from rollout.judge.drift import DriftReport, FeatureDrift, Window, judge_drift, stability, total_variation
from rollout.judge.features import DAY_S, Feature, Features, number
from rollout.judge.log_gamma import log_gamma
from tests.judge import drift_simulations as traffic
from tests.judge.drift_simulations import STEP, rows

CHANGES = {
    "another unit": (traffic.scaled, "income", 25),
    "a new category": (traffic.new_category, "kind", 50),
    "a field that is not sent any more": (traffic.dropped, "score", 25),
}


def draw(count: int, seed: int = 1) -> Features:
    return rows(count, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return Baseline.of(draw(400, seed=0))


def of(report: DriftReport, name: str) -> FeatureDrift:
    return next(each for each in report.features if each.feature == name)


def test_the_logarithm_of_gamma_is_scipys() -> None:
    values = np.concatenate([np.geomspace(1e-4, 1e9, 400), [0.5, 1, 2]])
    assert np.allclose(log_gamma(values), gammaln(values), rtol=1e-10, atol=1e-10)


def test_distances_of_counts() -> None:
    expected = np.array([500.0, 500.0, 0.0])
    far = total_variation(np.array([[0.0, 0, 1_000], [5_000, 5_000, 0], [0, 0, 0]]), expected)
    assert far.round(2).tolist() == [1.0, 0.0, 0.0]
    assert stability(expected, expected) == 0
    half = np.array([900.0, 100.0, 0.0])
    assert stability(half, expected) == pytest.approx(0.4 * math.log(1.8) + 0.4 * math.log(5), rel=0.02)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told_within_so_many_rows(baseline: Baseline, change: str) -> None:
    happens, feature, most = CHANGES[change]
    random = np.random.default_rng(2)
    count, moved = traffic.rows_until_seen(baseline, partial(rows, random=random), happens)
    assert count <= most
    assert feature in moved


def test_what_goes_together_otherwise_is_told_though_no_feature_moved(baseline: Baseline) -> None:
    random = np.random.default_rng(3)
    count, moved = traffic.rows_until_seen(baseline, partial(rows, random=random), traffic.turned)
    assert moved == ["together"]
    assert count <= 400


def test_a_thousand_looks_at_unchanged_traffic_are_quiet() -> None:
    assert traffic.look_often(1, 1_000, 360, 20, seed=4, alpha=0.01, least=0.1) == 0


def test_evidence_alone_keeps_the_level() -> None:
    """Of 30 runs at a level of 20 %, more than 10 alarm in 3 % of cases at most."""
    assert traffic.look_often(30, 15, 100, 150, seed=5, alpha=0.2, least=0.0) <= 10 / 30


def test_it_says_since_when_how_far_and_from_where_to_where(baseline: Baseline) -> None:
    random = np.random.default_rng(6)
    windows = [
        Window(
            at * STEP, STEP, baseline.measure(rows(100, random) if at < 24 else traffic.scaled(rows(100, random)))
        )
        for at in range(36)
    ]
    report = judge_drift(baseline, windows, packed_at=0.0)
    income = of(report, "income")
    assert report.state == "drifted"
    assert report.features[0].moved
    assert income.moved
    assert income.since == "1970-01-01T02:00:00Z"
    assert income.rows == 1_200
    assert income.distance > 0.9
    assert income.stability > 1
    assert income.e_value > income.limit == 2
    assert income.before == pytest.approx(30_000, rel=0.1)
    assert income.now is not None
    assert 1e7 < income.now < 1e8
    assert sum(income.expected) == pytest.approx(1, abs=1e-4)
    assert sum(income.found) == pytest.approx(1, abs=1e-4)
    assert len(income.labels) == len(income.found)
    assert "€" in income.detail
    assert not of(report, "spent").moved
    assert msgspec.json.decode(msgspec.json.encode(report), type=DriftReport) == report


def test_it_says_which_category_is_new(baseline: Baseline) -> None:
    window = Window(0.0, STEP, baseline.measure(traffic.new_category(draw(400))))
    kind = of(judge_drift(baseline, [window], packed_at=0.0), "kind")
    assert "25.0% of rows are 'other', of which the evaluation part had none" in kind.detail
    assert kind.before is kind.now is None


def test_rows_that_are_refused_are_a_field_that_moved(baseline: Baseline) -> None:
    sketch = baseline.measure(draw(60)) + baseline.refused({"score": 60})
    report = judge_drift(baseline, [Window(0.0, STEP, sketch)], packed_at=0.0)
    assert [each.feature for each in report.features if each.moved] == ["score"]
    assert report.rows == 60
    assert "50.0% of rows are refused" in report.features[0].detail


def test_what_is_near_does_not_count_however_sure_it_is(baseline: Baseline) -> None:
    features = draw(50_000)
    near = features | {"spent": number(features["spent"].values + 0.1)}
    window = Window(0.0, STEP, baseline.measure(near))
    whole = Baseline.of(draw(50_000, seed=8))
    report = judge_drift(whole, [window._replace(vector=whole.measure(near))], packed_at=0.0)
    spent = of(report, "spent")
    assert spent.e_value > spent.limit
    assert 0.02 < spent.distance < 0.06
    assert not spent.moved
    assert of(
        judge_drift(whole, [window._replace(vector=whole.measure(near))], packed_at=0.0, least=0.02), "spent"
    ).moved


def test_windows_may_have_any_lengths(baseline: Baseline) -> None:
    random = np.random.default_rng(9)
    small = [baseline.measure(rows(20, random)) for _ in range(24)]
    moved = [baseline.measure(traffic.dropped(rows(20, random))) for _ in range(6)]
    day = Window(0.0, DAY_S, np.sum(small[:12], axis=0))
    hour = Window(DAY_S, 3_600.0, np.sum(small[12:], axis=0))
    last = [Window(DAY_S + 3_600 + at * 60, 60.0, each) for at, each in enumerate(moved)]
    score = of(judge_drift(baseline, [day, hour, *last], packed_at=-3_600.0), "score")
    assert score.since == "1970-01-02T01:00:00Z"
    with pytest.raises(ValueError, match="60 s or longer"):
        judge_drift(baseline, [day._replace(seconds=1.0)], packed_at=0.0)


def test_nothing_yet_is_too_few(baseline: Baseline) -> None:
    empty = judge_drift(baseline, [], packed_at=0.0)
    assert (empty.state, empty.rows) == ("too_few", 0)
    few = judge_drift(baseline, [Window(0.0, STEP, baseline.measure(draw(20)))], packed_at=0.0)
    assert few.state == "too_few"
    msgspec.json.encode(empty)


def test_rows_that_are_alike_are_worth_less(baseline: Baseline) -> None:
    """Twenty rows of each of few clients: their kind is that of the client."""
    windows = [
        Window(
            0.0,
            STEP,
            baseline.measure(
                {**draw(400), "kind": Feature(np.repeat(draw(20, seed=11)["kind"].values, 20), traffic.KINDS)}
            ),
        )
    ]
    by_rows = of(judge_drift(baseline, windows, packed_at=0.0), "kind")
    by_clients = of(judge_drift(baseline, windows, packed_at=0.0, worth=1 / 20), "kind")
    assert by_clients.e_value < by_rows.e_value
    assert not by_clients.moved


def test_hours_are_compared_over_whole_days() -> None:
    def hours(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Features:
        return {"hour": Feature(values, unit="h", period_s=DAY_S)}

    baseline = Baseline.of(hours(np.tile(np.arange(24.0), 20)))
    windows = [
        Window(hour * 3_600.0, 3_600.0, baseline.measure(hours(np.full(50, hour % 24.0)))) for hour in range(49)
    ]
    for end in (6, 24, 30, 49):
        assert not of(judge_drift(baseline, windows[:end], packed_at=0.0), "hour").moved, end
    night = [Window(hour * 3_600.0, 3_600.0, baseline.measure(hours(np.full(50, 3.0)))) for hour in range(24)]
    assert of(judge_drift(baseline, night, packed_at=0.0), "hour").moved
