"""Confidence sequences: what others compute, what must hold for any data, and the truth within them at all times."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge import sequences
from rollout.judge.sequences import asymptotic_mean, bounded_mean, least_difference, normal_mixture, proportion
from tests.judge import simulations

ALPHAS = st.floats(0.001, 0.4)
SHARES = st.lists(st.floats(0, 1), max_size=60)


def test_the_examples() -> None:
    assert doctest.testmod(sequences).failed == 0


@pytest.mark.parametrize(
    ("variance", "alpha", "tuned_for", "expected"),
    [(100, 0.05, 100, 30.35208990), (2_500, 0.01, 400, 184.99513253), (7, 0.05, 1_000, 28.35646889)],
)
def test_the_boundary_is_that_of_others(variance: float, alpha: float, tuned_for: float, expected: float) -> None:
    """Of ``confseq`` and ``expectation``, which agree."""
    assert normal_mixture(float(variance), alpha, tuned_for) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("successes", "trials", "alpha", "tuned_for", "expected"),
    [
        (700, 1_000, 0.05, 100, (0.651629, 0.745949)),
        (15, 50, 0.05, 50, (0.129556, 0.511896)),
        (0, 100, 0.05, 300, (0, 0.05605953)),
        (3, 600, 0.0125, 300, (0.00005263, 0.02190011)),
        (100, 100, 0.1, 20, (0.97507379, 1)),
    ],
)
def test_proportions_are_those_of_others(
    successes: int, trials: int, alpha: float, tuned_for: float, expected: tuple[float, float]
) -> None:
    """Of ``confseq``, and by the martingale of ``expectation``."""
    assert proportion(successes, trials, alpha, tuned_for) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("values", "alpha", "expected"),
    [
        ([1, 0, 1, 1] * 100, 0.05, (0.6714, 0.8234)),
        ([(37 * row % 101) / 100 for row in range(500)], 0.1, (0.4582, 0.5375)),
    ],
)
def test_bets_are_those_of_others(values: list[float], alpha: float, expected: tuple[float, float]) -> None:
    """Of ``confseq``'s ``betting_cs`` with the bets of the paper, on a grid of means."""
    assert bounded_mean(values, 0, 1, alpha) == pytest.approx(expected, abs=1e-4)


def test_without_data_everything_is_possible() -> None:
    assert bounded_mean([], -1, 1, 0.05) == pytest.approx((-1, 1))
    assert proportion(0, 0, 0.05, 100) == (0, 1)


def test_a_value_outside_its_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        bounded_mean([0.5, 1.5], 0, 1, 0.05)
    with pytest.raises(ValueError, match="between"):
        bounded_mean([math.nan], 0, 1, 0.05)


@given(SHARES, ALPHAS)
def test_bounds_hold_and_more_certainty_is_wider(values: list[float], alpha: float) -> None:
    low, high = bounded_mean(values, 0, 1, alpha)
    wide_low, wide_high = bounded_mean(values, 0, 1, alpha / 2)
    assert 0 <= wide_low <= low + 1e-9
    assert high - 1e-9 <= wide_high <= 1


@given(SHARES, st.floats(-5, 5), st.floats(0.1, 5))
def test_the_unit_of_values_changes_nothing(values: list[float], least: float, span: float) -> None:
    low, high = bounded_mean(values, 0, 1, 0.05)
    moved = bounded_mean(np.array(values) * span + least, least - 1e-12, least + span + 1e-12, 0.05)
    assert moved == pytest.approx((least + span * low, least + span * high), abs=1e-6)


@given(SHARES.filter(len))
def test_what_is_excluded_stays_so(values: list[float]) -> None:
    """Bets with another ``alpha`` are others, so it is the same one."""
    low, high = bounded_mean(values[:-1], 0, 1, 0.3)
    later_low, later_high = bounded_mean(values, 0, 1, 0.3)
    if later_low < later_high and not math.isclose(later_low, later_high):
        assert later_low >= low - 1e-9
        assert later_high <= high + 1e-9


@given(st.integers(0, 200), st.integers(0, 200), ALPHAS)
def test_successes_and_failures_are_alike(successes: int, failures: int, alpha: float) -> None:
    low, high = proportion(successes, successes + failures, alpha, 100)
    assert 0 <= low <= high <= 1
    if successes + failures:
        assert low <= successes / (successes + failures) <= high
    mirrored = proportion(failures, successes + failures, alpha, 100)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


COUNTED = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(lambda pair: (pair[0], sum(pair)))


@given(COUNTED, COUNTED)
def test_a_difference_is_between_what_the_proportions_are_and_allow(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    at_least, at_most = least_difference(one, other, 0.05, 300), -least_difference(other, one, 0.05, 300)
    assert -1 <= at_least <= at_most <= 1
    if one[1] and other[1]:
        assert at_least - 1e-6 <= one[0] / one[1] - other[0] / other[1] <= at_most + 1e-6
        # Two sequences that share the error refute less, but where nothing is refuted at all.
        apart = proportion(*one, 0.025, 300)[0] - proportion(*other, 0.025, 300)[1]
        assert at_least >= min(apart, 0) - 1e-3 or at_least >= apart - 0.03


@given(st.floats(1, 1e6), st.floats(-10, 10), st.floats(0, 100), ALPHAS)
def test_an_asymptotic_sequence_is_wider_than_an_interval(
    count: float, mean: float, variance: float, alpha: float
) -> None:
    low, high = asymptotic_mean(count, mean, variance, alpha, tuned_for=1_000)
    assert (low + high) / 2 == pytest.approx(mean, abs=1e-9)
    assert high - mean >= math.sqrt(variance / count * 2 * math.log(1 / alpha)) - 1e-9


def test_the_tuning_is_narrowest_there() -> None:
    widths = {tuned: normal_mixture(1_000.0, 0.05, tuned) for tuned in (100, 500, 1_000, 2_000, 10_000)}
    assert min(widths, key=lambda tuned: widths[tuned]) == 1_000


def test_the_truth_stays_within_at_all_times() -> None:
    """Of 400 runs, 20 are expected to leave at most; with 33 the chance that it holds is below one in a thousand."""
    least = 1 - 33 / 400
    assert simulations.cover_bounded(400, 500, seed=1) >= least
    assert simulations.cover_asymptotic(400, 2_000, seed=2) >= least
    assert simulations.cover_proportion(400, 300, 0.05, seed=3) >= least


def test_a_difference_that_is_none_is_hardly_ever_seen() -> None:
    """Looked at after each tenth request of 500. Of 100 runs, 5 may; 11 come once in a hundred times."""
    failed = (np.random.default_rng(4).random((100, 2, 500)) < 0.05).cumsum(axis=2)[:, :, 9::10]
    wrong = sum(
        any(least_difference((one, 10 * look), (other, 10 * look), 0.05, 300) > 0 for look, (one, other) in looks)
        for looks in ([*enumerate(run.T.tolist(), start=1)] for run in failed)
    )
    assert wrong < 11


def test_an_interval_of_one_time_would_not_do() -> None:
    """What is simulated is hard enough: a normal interval, looked at as often, is wrong in far more runs."""
    samples = np.random.default_rng(2).exponential(1.0, (400, 2_000))
    count = np.arange(1, 2_001)
    mean = samples.cumsum(axis=1) / count
    deviation = np.sqrt((samples**2).cumsum(axis=1) / count - mean**2)
    is_inside = np.abs(mean - 1) <= 1.96 * deviation / np.sqrt(count)
    assert is_inside[:, 100:].all(axis=1).mean() < 0.8
