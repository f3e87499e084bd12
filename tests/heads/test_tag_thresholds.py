"""Several labels: the decisions that nobody looks at are wrong no more often than promised."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads.calibration import UNREACHED, error_bound, review_threshold
from rollout.heads.tag_thresholds import decide, tag_thresholds, unsure

LABELS = 8
SPLITS = 150


def tags(generator: np.random.Generator, rows: int, labels: int = LABELS) -> tuple[NDArray[np.float64], ...]:
    """Log odds that are half as large as the model says, and how often each label truly holds."""
    odds = generator.normal(scale=4, size=(rows, labels))
    return scipy.special.expit(2 * odds), scipy.special.expit(odds)


def test_no_label_is_wrong_more_often_than_promised() -> None:
    """The true error of each margin is known; the failure of any of the labels counts."""
    generator = np.random.default_rng(0)
    risk, delta, threshold = 0.04, 0.1, 0.5
    said, truth = tags(generator, 200_000, 1)
    far, error = np.abs(said[:, 0] - threshold), np.where(said >= threshold, 1 - truth, truth)[:, 0]
    order = np.argsort(-far)
    true_risk = np.cumsum(error[order]) / np.arange(1, len(order) + 1)
    failed = found = 0
    for _ in range(SPLITS):
        said, truth = tags(generator, 999)
        holds = generator.random(truth.shape) < truth
        got = tag_thresholds(said[333:], holds[333:], said[:333], threshold, risk=risk, delta=delta)
        reached = got.margins[got.margins < UNREACHED]
        answered = np.searchsorted(-far[order], -reached, side="right")
        found += len(reached)
        failed += bool((true_risk[answered - 1] > risk).any())
    assert found > 0.4 * SPLITS * LABELS
    assert 0 < failed <= scipy.stats.binom.ppf(0.999, SPLITS, delta)


def test_each_label_is_tested_alone_and_shares_the_error() -> None:
    generator = np.random.default_rng(1)
    said, truth = tags(generator, 900, 3)
    holds = generator.random(truth.shape) < truth
    got = tag_thresholds(said[300:], holds[300:], said[:300], [0.4, 0.5, 0.55], risk=0.1)
    for label, threshold in enumerate([0.4, 0.5, 0.55]):
        far = np.abs(said[:, label] - threshold)
        correct = (said[300:, label] >= threshold) == holds[300:, label]
        assert got.margins[label] == review_threshold(far[300:], correct, far[:300], risk=0.1, delta=0.05 / 3)
        answered = far[300:] >= got.margins[label]
        assert got.answered[label] == answered.sum() > 0
        assert got.errors[label] == (answered & ~correct).sum()
        assert got.bounds[label] == error_bound(int(got.errors[label]), int(got.answered[label]), 0.05 / 3) <= 0.1
    assert len(set(got.margins)) == 3


def test_what_keeps_no_risk_goes_to_review_whole() -> None:
    """The second label is a coin; the first is certain."""
    said = np.stack([np.tile([0.01, 0.99], 500), np.random.default_rng(0).random(1000)], 1)
    holds = np.stack([np.tile([False, True], 500), np.tile([False, True, True, False], 250)], 1)
    got = tag_thresholds(said, holds, said)
    assert got.margins.tolist() == [0.49, UNREACHED]
    assert got.answered.tolist() == [1000, 0]
    assert got.bounds[1] == 1
    assert not unsure(said, got.thresholds, got.margins)[:, 0].any()
    assert unsure(said, got.thresholds, got.margins)[:, 1].all()


def test_a_label_holds_at_its_threshold_and_is_sure_at_its_margin() -> None:
    said = np.array([[0.5, 0.25, 0.75, np.nan]])
    assert decide(said, [0.5, 0.5, 0.8, 0.5]).tolist() == [[True, False, False, False]]
    assert unsure(said, 0.5, [0.0, 0.25, 0.3, 0.0]).tolist() == [[False, False, True, True]]


def test_thresholds_that_are_none_are_refused() -> None:
    said, holds = np.full((300, 2), 0.9), np.ones((300, 2), bool)
    with pytest.raises(BundleError, match=r"a threshold of 1.5 is no probability"):
        tag_thresholds(said, holds, said, [0.5, 1.5])
    with pytest.raises(BundleError, match="a threshold of nan"):
        tag_thresholds(said, holds, said, float("nan"))
    with pytest.raises(BundleError, match="3 thresholds are given for 2 labels"):
        tag_thresholds(said, holds, said, [0.5, 0.5, 0.5])
