"""Agreement of two reviewers, against a hand example and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from rollout.judge.kappa import Agreement, measure_agreement


def test_an_example_by_hand() -> None:
    """By chance both say yes to 0.5 * 0.6 of the items and no to 0.5 * 0.4: half of them."""
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    agreement = measure_agreement(pairs)
    assert agreement == Agreement(items=50, share=0.7, kappa=0.4)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_scikit_learn_says(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = [str(label) for label in range(generator.integers(2, 11))]
    items = int(generator.integers(5, 300))
    first = generator.choice(labels, items)
    second = np.where(generator.random(items) < generator.random(), first, generator.choice(labels, items))
    agreement = measure_agreement(list(zip(first.tolist(), second.tolist(), strict=True)))
    expected = cohen_kappa_score(first, second)
    assert not math.isnan(expected)
    assert agreement.kappa == pytest.approx(expected, abs=1e-12)
    assert agreement.share == pytest.approx((first == second).mean())


def test_who_always_agrees_has_1_and_who_never_does_is_below_0() -> None:
    assert measure_agreement([("a", "a"), ("b", "b")]).kappa == 1
    assert measure_agreement([("a", "b"), ("b", "a")]).kappa == -1


def test_one_reviewer_with_a_single_label_agrees_no_more_than_by_chance() -> None:
    assert measure_agreement([("a", "a"), ("a", "b"), ("a", "a")]).kappa == 0


@pytest.mark.parametrize("items", [1, 3, 49])
def test_a_single_class_says_nothing_about_chance(items: int) -> None:
    assert measure_agreement([("a", "a")] * items) == Agreement(items=items, share=1.0, kappa=None)


def test_no_item_says_nothing_at_all() -> None:
    assert measure_agreement([]) == Agreement(items=0, share=None, kappa=None)
