"""What heads make of numbers: other layouts, the same decision or another, and how far apart they are."""

from __future__ import annotations

import numpy as np
import pytest

from rollout import Classification, Regression

THREE = Classification(labels=["a", "b", "c"])
ANIMALS = Classification(labels=["cat", "lion", "dog"])


def classes(*scores: float) -> list[float]:
    return [float(np.argmax(scores)), *scores]


def value(number: float, half: float) -> list[float]:
    return [number, number - half, number + half]


def test_labels_are_translated_and_those_that_mean_the_same_are_added() -> None:
    public = Classification(labels=["dog", "cat"])
    translate = ANIMALS.translation(public, {"lion": "cat"})
    assert translate is not None
    assert translate(np.array([classes(0.3, 0.3, 0.4)])).tolist() == [[1, 0.4, 0.6]]
    assert public.answer([1, 0.4, 0.6]) == ("cat", 0.6, {"dog": 0.4, "cat": 0.6})


def test_what_callers_see_has_each_label_once_and_takes_no_translation_where_it_is_the_own() -> None:
    assert ANIMALS.public({"lion": "cat"}).labels == ["cat", "dog"]
    assert ANIMALS.public({}) is ANIMALS
    assert ANIMALS.translation(ANIMALS, {}) is None
    assert Regression().translation(Regression(coverage=0.5), {}) is None


def test_classes_agree_on_the_class_and_differ_by_total_variation() -> None:
    ours, theirs = classes(0.5, 0.3, 0.2), classes(0.2, 0.6, 0.2)
    assert not THREE.agree(ours, theirs)
    assert THREE.agree(ours, classes(0.4, 0.3, 0.3))
    assert THREE.distance(ours, theirs) == pytest.approx(0.3)
    assert THREE.distance(classes(1, 0, 0), classes(0, 1, 0)) == 1


def test_values_agree_within_the_champions_interval() -> None:
    head = Regression()
    assert head.agree(value(10, 2), value(12, 9))
    assert not head.agree(value(10, 2), value(12.1, 9))
    assert head.distance(value(10, 2), value(13, 9)) == pytest.approx(1.5)


def test_scores_go_out_at_the_sixth_decimal_that_is_nearest_in_double_precision() -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(3), 5000).astype(np.float32)
    numbers = THREE.numbers(scores)
    assert np.array_equal(numbers[:, 1:], scores.astype(np.float64).round(6))
    assert np.array_equal(numbers[:, 0], scores.argmax(-1))
