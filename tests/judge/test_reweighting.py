"""The accuracy of each bin, in another mix of bins."""

from __future__ import annotations

import numpy as np
import pytest

from rollout.judge.baseline import Baseline
from rollout.judge.features import Feature, Features
from rollout.judge.reweighting import Seen, predict_accuracy

KINDS = ("easy", "hard", "new")


def kinds(easy: int, hard: int, new: int = 0) -> Features:
    return {"kind": Feature(np.repeat([0.0, 1.0, 2.0], [easy, hard, new]), KINDS)}


@pytest.fixture
def baseline() -> Baseline:
    """Of 800 easy rows, 95 % are answered right, of 200 hard ones 60 %."""
    right = np.concatenate([np.arange(800) < 760, np.arange(200) < 120])
    return Baseline.of(kinds(800, 200), right.astype(float))


def test_it_is_that_of_the_evaluation_part_in_the_same_mix(baseline: Baseline) -> None:
    same = predict_accuracy(baseline, "kind", baseline.measure(kinds(400, 100)))
    assert same is not None
    assert same.estimate == pytest.approx(same.before) == pytest.approx(0.88)
    assert same.low < 0.88 < same.high
    assert same.unknown == 0


def test_more_hard_rows_make_it_worse(baseline: Baseline) -> None:
    found = predict_accuracy(baseline, "kind", baseline.measure(kinds(500, 500)))
    assert found is not None
    assert found.estimate == pytest.approx((0.95 + 0.6) / 2)
    assert found.low < found.estimate < found.high < 0.88


def test_nothing_is_known_of_a_new_category_until_people_look(baseline: Baseline) -> None:
    live = baseline.measure(kinds(500, 0, 500))
    blind = predict_accuracy(baseline, "kind", live)
    assert blind is not None
    assert blind.unknown == 0.5
    assert blind.high - blind.low > 0.5
    seen = [Seen(2.0, 10.0, float(row < 20)) for row in range(100)]
    told = predict_accuracy(baseline, "kind", live, seen)
    assert told is not None
    assert told.unknown == 0
    assert told.reviewed == 100
    assert told.estimate == pytest.approx((0.95 + 0.2) / 2)
    assert told.high - told.low < 0.2


def test_reviewed_rows_speak_by_their_weights(baseline: Baseline) -> None:
    """Rows in doubt were all looked at and are often wrong; each of the others stands for fifty."""
    doubtful = [Seen(2.0, 1.0, float(row < 50)) for row in range(100)]
    audit = [Seen(2.0, 50.0, float(row < 19)) for row in range(20)]
    found = predict_accuracy(baseline, "kind", baseline.measure(kinds(0, 0, 100)), doubtful + audit)
    assert found is not None
    assert found.estimate == pytest.approx((50 + 19 * 50) / (100 + 20 * 50))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(300):
        codes = random.choice(2, 300, p=[0.7, 0.3]).astype(float)
        rates = np.array([0.9, 0.6])
        baseline = Baseline.of(
            {"kind": Feature(codes, KINDS)}, (random.random(300) < rates[codes.astype(int)]).astype(float)
        )
        found = predict_accuracy(baseline, "kind", baseline.measure(kinds(3_000, 7_000)))
        assert found is not None
        held += found.low <= 0.3 * 0.9 + 0.7 * 0.6 <= found.high
    assert held / 300 >= 0.93


def test_there_is_none_where_nothing_is_right_or_wrong(baseline: Baseline) -> None:
    live = baseline.measure(kinds(10, 10))
    assert predict_accuracy(Baseline.of(kinds(80, 20)), "kind", live) is None
    assert predict_accuracy(baseline, "no such", live) is None
    assert predict_accuracy(baseline, "kind", np.zeros(baseline.size)) is None
