"""Krippendorff's alpha, against his examples, by hand, by kappa and by simulation."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rollout.judge import alpha as module
from rollout.judge.alpha import Alpha, interval, jaccard, masi, measure_alpha, nominal, ordinal
from rollout.judge.kappa import measure_agreement

# Krippendorff 2011, section C: four observers of twelve units, of which some are missing.
OBSERVERS = [
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
]
UNITS = [[int(value) for value in unit if value != "."] for unit in zip(*map(str.split, OBSERVERS), strict=True)]
# Section A and B: two observers of binary data and of nominal data.
BINARY = ["0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"]
LETTERS = ["a a b b d c c c e d d a", "b a b b b c c c e d d d"]


def test_the_examples_are_true() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("difference", "published"), [(nominal, 0.743), (ordinal(UNITS), 0.815), (interval, 0.849)]
)
def test_krippendorffs_example_with_missing_values(
    difference: Callable[[Any, Any], float], published: float
) -> None:
    got = measure_alpha(UNITS, difference)
    assert (got.items, got.answers) == (11, 40)
    assert got.alpha == pytest.approx(published, abs=0.0005)


def test_his_ratio_difference_is_any_other_function() -> None:
    got = measure_alpha(UNITS, lambda one, other: ((one - other) / (one + other)) ** 2)
    assert got.alpha == pytest.approx(0.797, abs=0.0005)


@pytest.mark.parametrize(("observers", "published"), [(BINARY, 0.095), (LETTERS, 0.692)])
def test_krippendorffs_examples_of_two_observers(observers: list[str], published: float) -> None:
    got = measure_alpha(list(zip(*map(str.split, observers), strict=True)), nominal)
    assert got.alpha == pytest.approx(published, abs=0.0005)


def test_sets_by_hand() -> None:
    some, more, other = frozenset("ab"), frozenset("abc"), frozenset("bd")
    assert jaccard(some, more) == pytest.approx(1 / 3)
    assert masi(some, more) == pytest.approx(1 - 2 / 3 * 2 / 3)  # one holds the other
    assert jaccard(some, other) == pytest.approx(2 / 3)
    assert masi(some, other) == pytest.approx(1 - 1 / 3 * 1 / 3)  # each has its own
    for difference in (jaccard, masi):
        assert difference(some, some) == difference(frozenset(), frozenset()) == 0
        assert difference(some, frozenset()) == difference(frozenset("c"), some) == 1
        assert difference(more, other) == difference(other, more)
    # D_o is what the one pair that differs leaves; any two of some, some, more, more differ in 4 of 6.
    assert measure_alpha([(some, some), (more, more)], jaccard).alpha == 1
    assert measure_alpha([(some, more), (some, more)], jaccard).alpha == pytest.approx(1 - 1 / (4 / 6))


def test_nobody_and_a_single_answer_say_nothing() -> None:
    assert measure_alpha([], nominal) == Alpha(0, 0, None)
    assert measure_alpha([("a",), ()], nominal) == Alpha(0, 0, None)
    assert measure_alpha([("a", "a"), ("a", "a", "a")], nominal) == Alpha(2, 5, None)


def test_chance_is_0_and_opposites_are_below() -> None:
    generator = np.random.default_rng(0)
    answers = generator.integers(0, 4, (20_000, 3)).tolist()
    got = measure_alpha(answers, nominal)
    assert got.alpha == pytest.approx(0, abs=0.02)
    assert measure_alpha([("a", "b"), ("b", "a")], nominal).alpha == pytest.approx(-0.5)


@pytest.mark.parametrize("seed", range(5))
def test_many_labels_of_two_are_as_kappa_says(seed: int) -> None:
    """Both come to the same where there are many items and both reviewers give each label as often."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, 20_000)
    answers = [
        np.where(generator.random(20_000) < 0.8, truth, generator.integers(0, 3, 20_000)) for _ in range(2)
    ]
    pairs = list(zip(*(map(str, each.tolist()) for each in answers), strict=True))
    kappa = measure_agreement(pairs).kappa
    assert kappa is not None
    assert measure_alpha(pairs, nominal).alpha == pytest.approx(kappa, abs=1e-3)


def test_many_different_answers_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,200 spans as good as none is like another by chance, and a third is not the same for both."""
    generator = np.random.default_rng(0)
    starts = generator.integers(0, 300, 1_200).tolist()
    answers = [
        ((start, end), (start, end if item % 3 else end + 1))
        for item, (start, end) in enumerate(zip(starts, starts[::-1], strict=True))
    ]

    def loss(one: tuple[int, int], other: tuple[int, int]) -> float:
        return 1 - ((one[0] == other[0]) + (one[1] == other[1])) / 2

    drawn = measure_alpha(answers, loss).alpha
    monkeypatch.setattr(module, "COMPARED", 10_000)
    exact = measure_alpha(answers, loss).alpha
    assert exact == pytest.approx(1 - 1 / 6, abs=0.01)
    assert drawn == pytest.approx(exact, abs=0.001)
    assert drawn != exact


def test_reviewers_who_guess_between_the_truth_and_chance() -> None:
    """A reviewer knows a set with probability 0.7 and draws one otherwise: two agree beyond chance at 0.7 squared."""
    generator = np.random.default_rng(0)
    sets = [frozenset(name) for name in ("", "a", "b", "ab", "abc", "c")]
    truth, guesses = generator.integers(0, 6, 6_000), generator.integers(0, 6, (6_000, 2))
    given = np.where(generator.random((6_000, 2)) < 0.7, truth[:, None], guesses)
    answers = [tuple(sets[one] for one in row) for row in given.tolist()]
    for difference in (jaccard, masi, nominal):
        assert measure_alpha(answers, difference).alpha == pytest.approx(0.49, abs=0.03)
