"""Arms that should be of the same size."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge import sample_ratio
from rollout.judge.sample_ratio import COUNTING_ERROR, REFUSED, as_counted, e_value
from tests.judge import simulations

COUNTS = st.integers(0, 1_000_000)


def test_the_examples() -> None:
    assert doctest.testmod(sample_ratio).failed == 0


def test_nobody_is_no_evidence() -> None:
    assert e_value([0, 0], [1, 1]) == pytest.approx(1)
    assert as_counted([0, 0]) == [0, 0]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.7, 0.3), (0.2, 0.3, 0.5)])
def test_the_expectation_is_one(shares: tuple[float, ...]) -> None:
    """Over all ways in which ten clients can fall, by their probability."""
    total = 0.0
    for counts in _ways(10, len(shares)):
        ways = math.factorial(10) / math.prod(map(math.factorial, counts))
        chance = ways * math.prod(share**count for share, count in zip(shares, counts, strict=True))
        total += chance * e_value(counts, shares)
    assert total == pytest.approx(1)


def _ways(clients: int, arms: int) -> list[tuple[int, ...]]:
    if arms == 1:
        return [(clients,)]
    return [(count, *rest) for count in range(clients + 1) for rest in _ways(clients - count, arms - 1)]


@given(COUNTS, COUNTS)
def test_the_order_of_arms_changes_nothing(one: int, other: int) -> None:
    assert e_value([one, other], [0.2, 0.8]) == pytest.approx(e_value([other, one], [4, 1]))


@given(COUNTS, COUNTS)
def test_counting_takes_from_what_clients_are_worth(one: int, other: int) -> None:
    worth = as_counted([one, other])
    assert all(less <= count for less, count in zip(worth, (one, other), strict=True))
    assert sum(worth) <= 2 / COUNTING_ERROR**2 + 1


@pytest.mark.parametrize("clients", [300, 3_000, 200_000])
@pytest.mark.parametrize("counted", [False, True])
def test_honest_ramps_are_taken_for_honest(clients: int, counted: bool) -> None:
    """One in 200 may ever be refused; of 60, three or more come once in 300."""
    assert simulations.ratio_alarms(60, 300, clients, (1, 1), seed=7, counted=counted) < 3 / 60


def test_a_small_imbalance_is_found() -> None:
    assert e_value([50 / 98 * 200_000, 48 / 98 * 200_000], [1, 1]) > 1e6
    assert simulations.ratio_alarms(20, 300, 200_000, (50, 48), seed=8, counted=False) == 1


@pytest.mark.parametrize(("control", "challenger"), [(200, 300), (3000, 2500), (100_000, 110_000), (400, 0)])
def test_a_loss_is_noticed_though_counts_err(control: int, challenger: int) -> None:
    assert e_value(as_counted([control, challenger]), [1, 1]) > REFUSED
    assert e_value(as_counted([challenger, control]), [1, 1]) > REFUSED


def test_what_counting_explains_is_no_loss() -> None:
    counts = [1_000_000, 1_034_000]  # 3 standard deviations of two HyperLogLogs
    assert e_value(as_counted(counts), [1, 1]) < REFUSED
    assert e_value(counts, [1, 1]) > 1e100
