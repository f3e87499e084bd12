"""The verdict: a rollback on proof, and otherwise hold."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy.stats import binom

from rollout.judge import verdict as verdict_module
from rollout.judge.verdict import ERROR, ArmEvidence, failure_bounds, judge

FINE = ArmEvidence(clients=1000, rows=5000, requests=5000, failures=2, late=0)
NOTHING = ArmEvidence(0, 0, 0, 0, 0)


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
    assert "250 of 5000 requests (5.0%)" in verdict.detail
    assert judge(0.1, 40_000, FINE._replace(clients=3000), failing).verdict == "rollback", "whatever the ratio"


def test_a_few_failures_are_no_proof() -> None:
    assert judge(0.1, 40_000, FINE, FINE._replace(requests=20, failures=2)).verdict == "hold"
    assert judge(0.1, 40_000, FINE, FINE._replace(failures=40)).verdict == "hold", "0.8 % is tolerated"


def test_rows_on_which_both_fail_are_nobodys_fault() -> None:
    assert judge(0.1, 40_000, FINE._replace(failures=200), FINE._replace(failures=250)).verdict == "hold"


def test_without_a_control_nothing_is_proved() -> None:
    verdict = judge(0.1, 40_000, NOTHING, FINE._replace(clients=150, failures=2500))
    assert verdict[:2] == ("hold", "silent_arm")
    assert verdict.detail == "of 150 clients in the trial there are none of control, where about 75 were expected"


def test_what_fails_without_a_control_is_said() -> None:
    """A share of 0, and a rule that pins testers to the challenger."""
    verdict = judge(0.0, 40_000, NOTHING, ArmEvidence(0, 300, 300, failures=300, late=0))
    assert verdict[:2] == ("hold", "undecided")
    assert verdict.detail.startswith(
        "the challenger failed in 300 of 300 requests, there is no control to compare it with;"
    )


def test_what_is_late_proves_nothing_and_is_said() -> None:
    verdict = judge(0.1, 40_000, FINE, FINE._replace(requests=100, failures=0, late=4900))
    assert verdict[:2] == ("hold", "undecided")
    assert verdict.detail.startswith(
        "the champion answered 4900 rows since the challenger was late or its breaker open;"
    )


def test_failures_that_are_no_proof_are_said() -> None:
    assert judge(0.1, 40_000, FINE, FINE._replace(failures=40)).detail.startswith(
        "the challenger failed in 40 of 5000 requests, control in 2 of 5000, which is no proof;"
    )


def test_a_silent_challenger_holds() -> None:
    assert judge(0.1, 40_000, FINE._replace(clients=40), NOTHING)[:2] == ("hold", "silent_arm")
    verdict = judge(0.1, 40_000, FINE._replace(clients=0), NOTHING)
    assert verdict[:2] == ("hold", "silent_arm"), "with no client known, rows speak for them"
    assert "beside 40000 rows outside the trial there are none of the challenger" in verdict.detail


def test_many_rows_of_few_clients_make_no_silent_arm() -> None:
    few = FINE._replace(clients=12, rows=200_000)
    assert judge(0.01, 1_000_000, few, NOTHING)[:2] == ("hold", "undecided")


def test_pinned_testers_make_no_control_silent() -> None:
    testers = ArmEvidence(0, 200_000, 200_000, failures=0, late=0)
    assert judge(0.01, 0, NOTHING, testers)[:2] == ("hold", "undecided")


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
            arm = ArmEvidence(1000, 100 * look, 100 * look, count, 0)
            assert judge(0.1, 0, FINE._replace(failures=0), arm).verdict == "hold"
