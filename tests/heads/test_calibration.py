"""Temperature, review threshold and intervals keep what they promise."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from rollout import Classification, Regression, RolloutError
from rollout.heads.calibration import (
    UNREACHED,
    error_bound,
    fit_temperature,
    review_threshold,
    rows_needed,
)
from rollout.heads.reliability import bin_by_confidence

SPLITS = 1000


def overconfident(
    rows: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int_], NDArray[np.float64]]:
    """Logits three times too large, targets, and the log odds that the targets really have."""
    odds = generator.normal(scale=4, size=rows)
    targets = (generator.random(rows) < scipy.special.expit(odds)).astype(int)
    logits = np.stack([np.zeros(rows), odds * 3], axis=1).astype(np.float32)
    return logits, targets, odds


def likelihood_loss(logits: NDArray[np.float32], targets: NDArray[np.int_], temperature: float) -> float:
    log_scores = scipy.special.log_softmax(logits / temperature, axis=1)
    return float(-log_scores[np.arange(len(targets)), targets].mean())


def test_the_bound_is_the_binomial_tail() -> None:
    bound = error_bound(3, 200, 0.05)
    assert scipy.stats.binom.cdf(3, 200, bound) == pytest.approx(0.05)
    assert error_bound(7, 7, 0.05) == 1


def test_the_temperature_is_found_and_makes_the_targets_likelier() -> None:
    logits, targets, _ = overconfident(20_000, np.random.default_rng(0))
    temperature = fit_temperature(logits, targets)
    assert temperature == pytest.approx(3, rel=0.05)
    fresh, fresh_targets, _ = overconfident(20_000, np.random.default_rng(1))
    assert likelihood_loss(fresh, fresh_targets, temperature) < 0.7 * likelihood_loss(fresh, fresh_targets, 1)


def test_temperature_lowers_the_calibration_error() -> None:
    logits, targets, _ = overconfident(20_000, np.random.default_rng(0))
    correct = logits.argmax(1) == targets
    before = bin_by_confidence(scipy.special.softmax(logits, axis=1).max(1), correct).calibration_error
    temperature = fit_temperature(logits, targets)
    scaled = scipy.special.softmax(logits / temperature, axis=1)
    after = bin_by_confidence(scaled.max(1), correct).calibration_error
    assert before > 0.05
    assert after < 0.01


def test_perfect_predictions_need_no_review() -> None:
    confidence = np.linspace(0.5, 1, 1000)
    assert review_threshold(confidence, np.ones(1000, bool), confidence) == 0.5


def test_errors_at_low_confidence_are_cut_off() -> None:
    confidence = np.linspace(0, 1, 2000)
    threshold = review_threshold(confidence, confidence > 0.25, confidence)
    assert 0.25 <= threshold <= 0.31


@pytest.mark.parametrize(
    ("rows", "share_right"),
    [(40, 1.0), (1000, 0.8)],
)
def test_where_no_threshold_keeps_the_risk_everything_goes_to_review(rows: int, share_right: float) -> None:
    confidence = np.linspace(0.5, 1, rows)
    correct = np.random.default_rng(0).random(rows) < share_right
    assert review_threshold(confidence, correct, confidence) == UNREACHED
    assert rows_needed(0.02, 0.05) == 149


def test_a_threshold_of_ones_own_is_kept_and_its_risk_is_known() -> None:
    logits, targets, _ = overconfident(3000, np.random.default_rng(0))
    own = Classification(labels=["no", "yes"], review_threshold=0.8)
    done, evidence = own.calibrated(logits, targets)
    assert isinstance(done, Classification)
    assert evidence is not None
    assert done.review_threshold == 0.8
    assert evidence.is_given
    assert 0 < evidence.answered < evidence.rows == 2000
    assert evidence.bound == error_bound(evidence.answered_errors, evidence.answered, 0.05)
    assert 0.8 * evidence.bound < evidence.answered_errors / evidence.answered < evidence.bound


def test_what_a_weak_model_would_have_kept_is_known() -> None:
    logits, targets, _ = overconfident(600, np.random.default_rng(0))
    done, evidence = Classification(labels=["no", "yes"], risk=0.001).calibrated(logits, targets)
    assert evidence is not None
    assert done.review_limit == UNREACHED
    assert evidence.answered == 0
    assert evidence.needed == 2995
    assert evidence.lowest_risk is not None
    again, _ = Classification(labels=["no", "yes"], risk=evidence.lowest_risk).calibrated(logits, targets)
    assert again.review_limit < 1
    less, _ = Classification(labels=["no", "yes"], risk=evidence.lowest_risk - 0.01).calibrated(logits, targets)
    assert less.review_limit == UNREACHED


def test_the_risk_is_exceeded_no_more_often_than_promised() -> None:
    """An overconfident model of two classes whose true error at every threshold is known."""
    task = Classification(labels=["no", "yes"], risk=0.05, delta=0.05)
    generator = np.random.default_rng(0)
    sure = np.sort(np.abs(overconfident(200_000, generator)[2]))[::-1]
    true_risk = np.cumsum(scipy.special.expit(-sure)) / np.arange(1, len(sure) + 1)
    exceeded = found = 0
    for _ in range(SPLITS):
        logits, targets, _ = overconfident(600, generator)
        done, _ = task.calibrated(logits, targets)
        assert isinstance(done, Classification)
        if done.review_limit == UNREACHED:
            continue
        found += 1
        lowest = scipy.special.logit(done.review_threshold) * done.temperature / 3
        answered = np.searchsorted(-sure, -lowest, side="right")
        exceeded += int(true_risk[answered - 1] > task.risk)
    assert found > 0.7 * SPLITS
    assert 0 < exceeded <= scipy.stats.binom.ppf(0.999, SPLITS, task.delta)


@pytest.mark.parametrize("has_spread", [True, False])
def test_intervals_cover_as_often_as_promised(has_spread: bool) -> None:
    """Each split is given fresh rows of which a share of ``coverage`` must fall inside, on average."""
    task = Regression(coverage=0.9)
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(SPLITS):
        spread = generator.uniform(0.5, 4, 400)
        value = generator.normal(size=400)
        targets = value + 1 + spread * generator.standard_t(5, 400)
        outputs = np.stack([value, spread if has_spread else np.ones(400)], 1)
        done, _ = task.calibrated(outputs[:200].astype(np.float32), targets[:200])
        assert isinstance(done, Regression)
        half = done.half_width * (spread if has_spread else 1)
        shares.append((np.abs(targets - value) <= half)[200:].mean())
    error = 3 * float(np.std(shares)) / SPLITS**0.5
    assert 0.9 - error <= np.mean(shares) <= 0.9 + 1 / 201 + error


def test_a_spread_makes_intervals_as_wide_as_it_says() -> None:
    outputs = np.stack([np.zeros(99), np.arange(1, 100)], 1).astype(np.float32)
    targets = np.arange(1, 100) * np.linspace(0.01, 0.99, 99)
    done, _ = Regression(coverage=0.9).calibrated(outputs, targets)
    assert isinstance(done, Regression)
    assert done.half_width == pytest.approx(0.9)
    assert done.scale == pytest.approx(np.std(targets))


def test_too_few_rows_for_the_coverage_are_refused() -> None:
    task = Regression(coverage=0.99)
    with pytest.raises(
        RolloutError, match=r"98 calibration rows are too few for intervals that cover 99.0%: it takes 99"
    ):
        task.calibrated(np.tile(np.array([0, 1], np.float32), (98, 1)), np.ones(98))
    done, _ = task.calibrated(np.tile(np.array([0, 1], np.float32), (99, 1)), np.ones(99))
    assert done == msgspec.structs.replace(task, half_width=1.0)


@pytest.mark.parametrize("spread", [0.0, -1.0, np.nan])
def test_a_spread_that_is_not_positive_is_refused(spread: float) -> None:
    outputs = np.stack([np.zeros(99), np.full(99, spread)], 1).astype(np.float32)
    with pytest.raises(RolloutError, match="a spread that is not positive; let it end in softplus"):
        Regression().calibrated(outputs, np.ones(99))
