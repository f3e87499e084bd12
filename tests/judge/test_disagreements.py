"""Which version is right more often, from labels where they decide otherwise."""

from __future__ import annotations

import doctest
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge import disagreements
from rollout.judge.disagreements import Labelled, accuracy_difference, labels_wanted
from tests.judge import simulations

LABELS = st.lists(st.sampled_from([-1, 0, 1]), max_size=50)


def test_the_examples() -> None:
    assert doctest.testmod(disagreements).failed == 0


def test_the_estimate() -> None:
    assert accuracy_difference(1_000, 50, [1, 1, -1, 0], 0.05).estimate == pytest.approx(0.05 / 4)
    assert accuracy_difference(1_000, 50, [], 0.05).estimate == 0
    assert accuracy_difference(0, 0, [], 0.05) == (0, -1, 1)


def test_a_label_counts_for_those_that_were_not_picked() -> None:
    """Half of one kind and an eighth of the other were picked: one label each stands for 2 and 8."""
    labels = [Labelled(1, 0.5), Labelled(-1, 0.125)]
    assert accuracy_difference(1_000, 50, labels, 0.05).estimate == pytest.approx(0.05 * (2 - 8) / 10)
    alike = [Labelled(right, 0.3) for right in (1, -1, 1)]
    assert accuracy_difference(1_000, 50, alike, 0.05) == accuracy_difference(1_000, 50, [1, -1, 1], 0.05)


@pytest.mark.parametrize("wrong", [[2], [Labelled(1, 0.0)], [Labelled(1, float("nan"))]])
def test_labels_that_cannot_be_are_refused(wrong: list[Labelled | int]) -> None:
    with pytest.raises(ValueError, match="probability above 0"):
        accuracy_difference(1_000, 50, wrong, 0.05)


@given(LABELS, st.integers(0, 200))
def test_the_difference_is_no_larger_than_the_disagreement(labels: list[int], disagreed: int) -> None:
    low, high = accuracy_difference(1_000, disagreed, labels, 0.05)[1:]
    assert -1 <= low <= high <= 1
    mirrored = accuracy_difference(1_000, disagreed, [-one for one in labels], 0.05)
    assert mirrored[1:] == pytest.approx((-high, -low), abs=1e-9)


def test_the_truth_stays_within_at_all_times() -> None:
    """Though those that the champion had right were likelier to be picked. Of 200 runs, 10 may leave."""
    assert simulations.cover_disagreements(200, 200, seed=1) >= 1 - 20 / 200


def test_a_tenth_of_the_labels_is_enough() -> None:
    few, many = simulations.labels_until_verdict(11, seed=2)
    assert 10 * few <= many


def test_how_many_labels_are_wanted_is_about_right() -> None:
    """Said after 40 labels, of a challenger that is right in 60 % of the disagreements and wrong in 20 %."""
    generator = np.random.default_rng(3)
    said, needed = [], []
    for _ in range(30):
        labels = generator.choice([1, -1, 0], size=4_000, p=[0.45, 0.35, 0.2]).tolist()
        wanted = labels_wanted(40_000, 2_000, labels[:40], 0.05, limit=-0.005)
        said.append(40 + (wanted or 0))
        is_so = partial(_is_decided, labels)
        needed.append(simulations.first(is_so, 4_000))
    assert 0.5 < np.median(said) / np.median(needed) < 2


def _is_decided(labels: list[int], count: int) -> bool:
    return labels_wanted(40_000, 2_000, labels[:count], 0.05, -0.005) == 0


def test_nothing_is_wanted_where_it_is_decided_or_nobody_can_know() -> None:
    assert labels_wanted(20_000, 1_000, [1] * 200, 0.05, limit=0) == 0
    assert labels_wanted(20_000, 1_000, [-1] * 200, 0.05, limit=0) == 0
    assert labels_wanted(20_000, 0, [], 0.05, limit=-0.01) == 0, "they decide alike"
    assert labels_wanted(0, 0, [], 0.05, limit=-0.01) is None
    assert labels_wanted(20_000, 1_000, [1, -1], 0.05, limit=0) is None, "as it stands, neither is better"
