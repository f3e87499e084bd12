"""The review threshold keeps its guarantee."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from rollout import RolloutError
from rollout.bundle.calibration import error_bound, review_threshold


def test_the_bound_is_the_binomial_tail() -> None:
    bound = error_bound(3, 200, 0.05)
    assert scipy.stats.binom.cdf(3, 200, bound) == pytest.approx(0.05)
    assert error_bound(7, 7, 0.05) == 1


def test_perfect_predictions_need_no_review() -> None:
    confidence = np.linspace(0.5, 1, 1000)
    assert review_threshold(confidence, np.ones(1000, bool)) == 0.5


def test_errors_at_low_confidence_are_cut_off() -> None:
    confidence = np.linspace(0, 1, 2000)
    threshold = review_threshold(confidence, confidence > 0.25)
    assert 0.25 <= threshold <= 0.31


def test_no_threshold_is_an_error_of_its_own() -> None:
    with pytest.raises(RolloutError, match=r"no review threshold keeps the error at 2.0% with probability 95%"):
        review_threshold(np.linspace(0, 1, 40), np.ones(40, bool))


def test_the_risk_is_exceeded_no_more_often_than_promised() -> None:
    """A model that is right with probability equal to its confidence, so that the true risk is known."""
    generator = np.random.default_rng(0)
    splits, exceeded = 400, 0
    for _ in range(splits):
        confidence = generator.beta(8, 1, 600)
        correct = generator.random(600) < confidence
        try:
            threshold = review_threshold(confidence, correct, risk=0.08, delta=0.05)
        except RolloutError:
            continue
        answered = scipy.stats.beta(8, 1)
        above = np.linspace(threshold, 1, 2001)
        weights = answered.pdf(above)
        exceeded += int(np.average(1 - above, weights=weights) > 0.08)
    assert exceeded <= scipy.stats.binom.ppf(0.999, splits, 0.05)
