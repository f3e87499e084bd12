"""Boxes of two sets: which are the same, and how far apart the sets are."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from numpy.typing import NDArray

from rollout.heads import matching
from rollout.heads.matching import f1, iou, loss, match

EMPTY = np.zeros((0, 4))


def boxes(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    corner = generator.integers(0, 12, (count, 2))
    return np.concatenate([corner, corner + generator.integers(1, 9, (count, 2))], 1).astype(float)


def test_the_examples_are_true() -> None:
    assert doctest.testmod(matching).failed == 0


@pytest.mark.parametrize("seed", range(5))
def test_overlap_is_the_share_of_cells_that_both_cover(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ones, others = boxes(generator, 6), boxes(generator, 7)

    def cells(box: NDArray[np.float64]) -> set[tuple[int, int]]:
        x0, y0, x1, y1 = box.astype(int)
        return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}

    expected = [[len(cells(a) & cells(b)) / len(cells(a) | cells(b)) for b in others] for a in ones]
    assert iou(ones, others) == pytest.approx(np.array(expected))
    assert iou(ones * 0.1 + 3, others * 0.1 + 3) == pytest.approx(np.array(expected))  # in any unit


def test_what_has_no_area_overlaps_nothing() -> None:
    wrong = np.array([[1, 1, 1, 5], [3, 3, 1, 1], [np.nan, 0, 2, 2], [0, 0, np.inf, 2], [0, 0, 4, 4]])
    overlaps = iou(wrong, wrong)
    assert overlaps[-1, -1] == overlaps.sum() == 1
    assert iou(EMPTY, [[0, 0, 1, 1]]).shape == (0, 1)
    assert iou([], []).shape == (0, 0)


def test_the_best_found_box_comes_first_and_a_true_one_is_found_once() -> None:
    true = [[0, 0, 10, 10], [100, 0, 110, 10]]
    found = [[0, 0, 10, 8], [0, 0, 10, 10], [100, 0, 110, 4], [100, 0, 110, 6]]
    # The second is nearer to the first true box, which is taken; the third overlaps by less than half.
    assert match(found, "aaaa", true, "aa") == [(0, 0), (3, 1)]
    assert match(found, "aaaa", true, "aa", least=0.3) == [(0, 0), (2, 1)]
    assert match(found, "baab", true, "ab") == [(1, 0), (3, 1)]


def test_a_box_whose_best_is_taken_may_be_another() -> None:
    true = [[0, 0, 10, 10], [0, 0, 10, 9]]
    assert match([[0, 0, 10, 10], [0, 0, 10, 10]], [1, 1], true, [1, 1]) == [(0, 0), (1, 1)]


def test_half_is_enough() -> None:
    assert match([[0, 0, 1, 1]], ["a"], [[0, 0, 1, 2]], ["a"]) == [(0, 0)]
    assert match([[0, 0, 1, 1]], ["a"], [[0, 0, 1, 2.001]], ["a"]) == []


def test_f1_counts_what_is_missed_and_what_is_too_much() -> None:
    assert f1(0, 0, 0) == 1
    assert f1(0, 3, 0) == f1(0, 0, 3) == 0
    assert f1(2, 3, 5) == pytest.approx(2 / (3 / 2 + 5 / 2))


def test_the_loss_is_0_for_the_same_and_1_for_nothing_in_common() -> None:
    true = [[0, 0, 10, 10], [100, 0, 110, 10]]
    assert loss(true, "ab", true[::-1], "ba") == 0
    assert loss(true, "ab", true, "ba") == 1
    assert loss(EMPTY, [], EMPTY, []) == 0
    assert loss(EMPTY, [], true, "ab") == loss(true, "ab", EMPTY, []) == 1
    assert loss(true[:1], "a", true, "ab") == pytest.approx(1 / 3)


def test_boxes_that_lie_twice_are_the_same_twice() -> None:
    twice = [[0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 10, 10]]
    assert loss(twice, "aaa", twice, "aaa") == 0
    assert len(match(twice, "aaa", twice, "aaa")) == 3


@pytest.mark.parametrize("seed", range(30))
def test_neither_set_is_the_first(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ones = boxes(generator, 8) + generator.random((8, 4))
    others = ones[generator.permutation(8)[:7]] + generator.normal(scale=0.5, size=(7, 4))
    assert loss(ones, "a" * 8, others, "a" * 7) == loss(others, "a" * 7, ones, "a" * 8)


def test_what_is_best_first_may_cost_a_pair_that_the_largest_overlap_does_not() -> None:
    """The first found box takes the second's only one; the loss pairs what fits best."""
    found = [[0, 0, 10, 10], [0, 0, 10, 6]]
    true = [[0, 0, 10, 6.5], [0.0, 0, 10, 16]]
    assert iou(found, true).round(2).tolist() == [[0.65, 0.62], [0.92, 0.38]]
    assert match(found, "aa", true, "aa") == [(0, 0)]
    assert loss(found, "aa", true, "aa") == 0


def test_labels_are_as_many_as_boxes() -> None:
    with pytest.raises(ValueError, match="as many labels as boxes"):
        match([[0, 0, 1, 1]], [], [[0, 0, 1, 1]], ["a"])
