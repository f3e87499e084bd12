"""Sets and intervals hold the truth as often as they say, over many draws of calibration rows."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads.calibration import half_widths
from rollout.heads.conformal import (
    joint_half_widths,
    label_set_threshold,
    label_sets,
    quantile_margin,
    rows_needed,
    widen,
)

SPLITS = 1500
FRESH = 300
# So few that a rank without the row that is served would cover 0.885.
ROWS = 25
COVERAGE = 0.9


def assert_covers(shares: list[float], rows: int = ROWS, *, at_most: float | None = None) -> None:
    """The mean over the draws is the coverage or more, and as much more as the rank says."""
    error = 3 * float(np.std(shares)) / len(shares) ** 0.5
    exact = np.ceil((rows + 1) * COVERAGE) / (rows + 1)
    assert exact - error <= np.mean(shares) <= (exact if at_most is None else at_most) + error


def guesses(generator: np.random.Generator, rows: int) -> tuple[NDArray[np.float32], NDArray[np.int_]]:
    """Scores that are too sure of themselves, and targets."""
    logits = generator.normal(scale=1.5, size=(rows, 5))
    targets = (logits + generator.gumbel(size=logits.shape)).argmax(1)
    return scipy.special.softmax(3 * logits, axis=1).astype(np.float32), targets


def test_sets_hold_the_truth_and_are_no_larger_than_that_takes() -> None:
    generator = np.random.default_rng(0)
    plain, shown = [], []
    for _ in range(SPLITS):
        scores, targets = guesses(generator, ROWS + FRESH)
        threshold = label_set_threshold(scores[:ROWS], targets[:ROWS], 1 - COVERAGE)
        fresh, truth = scores[ROWS:], targets[ROWS:]
        plain.append(float((fresh[np.arange(FRESH), truth] >= threshold).mean()))
        shown.append(float(label_sets(fresh, threshold)[np.arange(FRESH), truth].mean()))
    assert_covers(plain)
    assert_covers(shown, at_most=0.95)


def test_no_set_is_empty() -> None:
    scores = np.array([[0.4, 0.35, 0.25], [0.8, 0.15, 0.05], [0.5, 0.5, 0.0]], np.float32)
    assert label_sets(scores, 0.6).tolist() == [[True, False, False], [True, False, False], [True, False, False]]
    assert label_sets(scores, 0.3).tolist() == [[True, True, False], [True, False, False], [True, True, False]]


def test_the_threshold_is_the_score_of_a_row_which_its_own_set_holds() -> None:
    scores, targets = guesses(np.random.default_rng(1), 999)
    threshold = label_set_threshold(scores, targets, 0.1)
    of_truth = scores[np.arange(999), targets]
    assert (of_truth >= threshold).sum() == 900
    assert (of_truth > np.nextafter(np.float32(threshold), np.float32(1))).sum() == 899


@pytest.mark.parametrize("wanted", [0.2, 1.0, 3.0], ids=["too narrow", "right", "too wide"])
def test_moved_quantiles_hold_the_target(wanted: float) -> None:
    """The spread of the target differs from row to row, and the model knows that, but not by how much."""
    generator = np.random.default_rng(0)
    shares, margins = [], []
    for _ in range(SPLITS):
        spread = generator.uniform(0.5, 4, ROWS + FRESH)
        targets = 1 + spread * generator.standard_t(5, ROWS + FRESH)
        low, high = -wanted * spread, wanted * spread
        margin = quantile_margin(low[:ROWS], high[:ROWS], targets[:ROWS], COVERAGE)
        lower, upper = widen(low[ROWS:], high[ROWS:], margin)
        shares.append(float(((targets[ROWS:] >= lower) & (targets[ROWS:] <= upper)).mean()))
        margins.append(margin)
    assert_covers(shares)
    assert (np.median(margins) < 0) == (wanted == 3)


def test_ends_that_pass_each_other_meet_in_the_middle() -> None:
    lower, upper = widen(np.array([0.0, 0.0]), np.array([10.0, 1.0]), -2)
    assert lower.tolist() == [2, 0.5]
    assert upper.tolist() == [8, 0.5]


def test_all_targets_of_a_row_hold_together() -> None:
    """Errors of three targets in other units, of which two go together and one has heavy tails."""
    generator = np.random.default_rng(0)
    rows, shares = 3 * 13, []
    for _ in range(SPLITS):
        common = generator.normal(size=rows + FRESH)
        columns = [
            common,
            1000 * (common + generator.normal(size=len(common))),
            generator.standard_t(3, len(common)),
        ]
        residuals = np.abs(np.stack(columns, 1))
        widths = joint_half_widths(residuals[:rows], COVERAGE)
        shares.append(float((residuals[rows:] <= widths).all(1).mean()))
    assert_covers(shares, rows - 13)


def test_each_target_misses_about_as_often_as_the_next() -> None:
    residuals = np.abs(np.random.default_rng(0).normal(size=(6000, 3)) * [1, 1000, 1e-6])
    widths = joint_half_widths(residuals, COVERAGE)
    # Three that know nothing of each other.
    assert (residuals <= widths).mean(0) == pytest.approx(COVERAGE ** (1 / 3), abs=0.01)


def test_one_target_is_what_one_target_was() -> None:
    residuals = np.abs(np.random.default_rng(0).normal(size=(50, 1)))
    assert joint_half_widths(residuals, 0.8).tolist() == [half_widths(residuals[:, 0], 0.8)]


def test_a_target_that_is_always_met_widens_no_other() -> None:
    residuals = np.abs(np.random.default_rng(0).normal(size=(600, 2))) * [1, 0]
    first, second = joint_half_widths(residuals, 0.9)
    assert first == pytest.approx(scipy.stats.norm.isf(0.05), abs=0.15)
    # The unit of what was always met, in as many units as the other needs.
    assert second == pytest.approx(first / np.quantile(residuals[::3, 0], 0.9))


def test_too_few_rows_are_refused_with_how_many_it_takes() -> None:
    scores, targets = guesses(np.random.default_rng(0), 98)
    with pytest.raises(BundleError, match=r"98 calibration rows are too few for sets .* 99.0%: it takes 99,"):
        label_set_threshold(scores, targets, 0.01)
    with pytest.raises(BundleError, match=r"98 .* intervals that cover 99.0%: it takes 99,"):
        quantile_margin(np.zeros(98), np.ones(98), np.ones(98), 0.99)
    with pytest.raises(BundleError, match=r"148 .* joint intervals that cover 99.0%: it takes 149,"):
        joint_half_widths(np.ones((148, 2)), 0.99)
    assert joint_half_widths(np.ones((149, 2)), 0.99).tolist() == [1, 1]
    assert rows_needed(0.9) == 9


@pytest.mark.parametrize("coverage", [0.0, 1.0, 1.5, float("nan")])
def test_a_coverage_that_nothing_can_promise_is_refused(coverage: float) -> None:
    with pytest.raises(BundleError, match="between 0 and 1"):
        quantile_margin(np.zeros(98), np.ones(98), np.ones(98), coverage)


def test_answers_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(BundleError, match="1 of 20 calibration rows"):
        joint_half_widths(np.array([[1.0]] * 19 + [[np.nan]]), 0.5)
    residuals = np.ones((30, 2))
    residuals[3, 1] = np.nan  # of those that say how wide the scales are
    with pytest.raises(BundleError, match="not a number"):
        joint_half_widths(residuals, 0.5)
