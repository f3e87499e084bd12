"""The verdict: a rollback on proof, and otherwise hold."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy.stats import binom

from rollout.judge import verdict as verdict_module
from rollout.judge.verdict import ERROR, ArmEvidence, failure_bounds, judge

FINE = ArmEvidence(clients=1000, rows=5000, asked=5000, failures=2)
NOTHING = ArmEvidence(0, 0, 0, 0)


def test_the_example() -> None:
    assert doctest.testmod(verdict_module).failed == 0


def test_no_data_holds() -> None:
    assert judge(0.1, 0, NOTHING, NOTHING)[:2] == ("hold", "undecided")
    assert judge(0.1, 100, NOTHING, NOTHING)[:2] == ("hold", "undecided"), "10 rows were to be expected"


def test_nothing_is_ever_promoted() -> None:
    assert judge(0.1, 40_000, FINE._replace(failures=900), FINE)[:2] == ("hold", "undecided")


def test_a_challenger_that_fails_is_rolled_back() -> None:
    failing = FINE._replace(failures=250)
    verdict = judge(0.1, 40_000, FINE, failing)
    assert verdict[:2] == ("rollback", "failures")
    assert "250 of 5000 rows (5.0%)" in verdict.detail
    assert judge(0.1, 40_000, FINE._replace(clients=3000), failing).verdict == "rollback", "whatever the ratio"


def test_a_few_failures_are_no_proof() -> None:
    assert judge(0.1, 40_000, FINE, FINE._replace(asked=20, failures=2)).verdict == "hold"
    assert judge(0.1, 40_000, FINE, FINE._replace(failures=40)).verdict == "hold", "0.8 % is tolerated"


def test_rows_on_which_both_fail_are_nobodys_fault() -> None:
    assert judge(0.1, 40_000, FINE._replace(failures=200), FINE._replace(failures=250)).verdict == "hold"


def test_without_a_control_nothing_is_proved() -> None:
    verdict = judge(0.1, 40_000, NOTHING, FINE._replace(clients=150, failures=2500))
    assert verdict[:2] == ("hold", "silent_arm")
    assert verdict.detail == "of 45000 rows none came from control, where about 4500 were expected"


def test_a_silent_challenger_holds() -> None:
    assert judge(0.1, 40_000, FINE._replace(clients=0), NOTHING)[:2] == ("hold", "silent_arm")


def test_arms_of_different_size_hold() -> None:
    assert judge(0.1, 40_000, FINE, FINE._replace(clients=1500))[:2] == ("hold", "sample_ratio")


@pytest.mark.parametrize(("failures", "rows"), [(0, 10), (1, 100), (30, 1000), (500, 1000), (1000, 1000)])
def test_the_bounds_hold_what_they_promise(failures: int, rows: int) -> None:
    """At either end, what was observed or more extreme has a probability of at most ``ERROR``."""
    low, high = failure_bounds(failures, rows)
    assert 0 <= low <= failures / rows <= high <= 1
    if failures:
        assert binom.sf(failures - 1, rows, low) <= ERROR * 1.001
    if failures < rows:
        assert binom.cdf(failures, rows, high) <= ERROR * 1.001


def test_the_bounds_are_not_much_too_wide() -> None:
    low, high = failure_bounds(30, 1000)
    assert binom.sf(29, 1000, low * 1.2) > ERROR
    assert binom.cdf(30, 1000, high * 0.9) > ERROR


def test_the_bounds_of_nothing() -> None:
    assert failure_bounds(0, 0) == (0.0, 1.0)
    low, high = failure_bounds(0, 1000)
    assert low == 0
    assert math.isclose(high, 1 - ERROR ** (1 / 1000), rel_tol=1e-6)


def test_a_fine_challenger_is_hardly_ever_rolled_back() -> None:
    """A look at each hundred rows, a thousand times over, at the very rate that is tolerated."""
    failures = np.random.default_rng(3).binomial(100, 0.01, (1000, 50)).cumsum(1).tolist()
    for run in failures:
        for look, count in enumerate(run, start=1):
            arm = ArmEvidence(1000, 100 * look, 100 * look, count)
            assert judge(0.1, 0, FINE._replace(failures=0), arm).verdict == "hold"
