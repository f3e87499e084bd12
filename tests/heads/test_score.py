"""A score puts rows in order, and is neither right nor wrong."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from rollout import Score
from rollout.heads import Truth
from rollout.heads.measured import Evaluated
from rollout.heads.score import rank_correlation


def column(*scores: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(scores, np.float32)[:, None]


def test_the_rank_correlation_is_spearmans() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=200), generator.integers(0, 9, size=200)
    assert rank_correlation(one, other) == pytest.approx(scipy.stats.spearmanr(one, other).statistic)
    assert rank_correlation(other, other**3) == pytest.approx(1)
    assert rank_correlation(one, np.zeros(200)) == 0


def test_a_place_is_another_where_a_row_is_overtaken_from_beyond_noise() -> None:
    head = Score(scale=1.0)
    scores = column(0, 1, 2, 2.05)
    assert not head.flipped(scores, scores + np.float32(0.09)).any()
    assert head.flipped(scores, column(0, 1, 2.06, 2.0)).tolist() == [False] * 4  # which two have no order
    assert head.flipped(scores, scores + np.float32(0.2)).all()
    assert head.flipped(column(0, 0.11, 5), column(0.07, 0.05, 5)).tolist() == [True, True, False]
    assert head.flipped(scores, scores * np.nan).all()
    assert head.agree([1.0], [1.05])
    assert not head.agree([1.0], [1.2])
    assert Score(scale=2.0).distance([1.0], [2.0]) == 0.5


def test_the_loss_is_the_share_of_pairs_in_the_wrong_order() -> None:
    head = Score()
    assert head.losses(column(1, 2, 3), np.array([1, 2, 3])).tolist() == [0, 0, 0]
    assert head.losses(column(3, 2, 1), np.array([1, 2, 3])).tolist() == [1, 1, 1]
    assert head.losses(column(1, 3, 2), np.array([1, 2, 3])).tolist() == [0, 0.5, 0.5]
    assert head.losses(column(5, 5), np.array([1, 2])).tolist() == [0.5, 0.5]
    assert head.losses(column(7, 5), np.array([2, 2])).tolist() == [0, 0]
    tau = scipy.stats.kendalltau(np.arange(300), scores := np.random.default_rng(0).permutation(300)).statistic
    assert head.losses(column(*scores), np.arange(300)).mean() == pytest.approx((1 - tau) / 2)


def test_it_is_neither_right_nor_wrong() -> None:
    head = Score()
    assert head.loss({"score": 1.0}, Truth(value=1.0)) is None
    assert head.accepted({"score": 1.0}) is None
    assert not head.needs_review(column(1, 2)).any()
    assert dict(head.faults(Truth(value=float("inf")))) == {"/value": "must be a number that float32 holds"}
    assert head.studio_truth([{"number": 3}]) == Truth(value=3.0)


def test_figures_are_about_the_order() -> None:
    generator = np.random.default_rng(0)
    outputs = generator.normal(size=(400, 1)).astype(np.float32) * 3
    targets = outputs[:, 0] + generator.normal(size=400)
    head, review = Score().calibrated(outputs, targets)
    assert review is None
    assert head.scale == pytest.approx(3, rel=0.1)
    figures, diagram = head.measured(Evaluated((outputs, targets), outputs, outputs, targets))
    assert not diagram
    assert figures["rank_correlation"] == pytest.approx(scipy.stats.spearmanr(outputs[:, 0], targets).statistic)
    assert head.mean_loss(figures) == figures["wrong_order"] < 0.2
    text, facts = head.report(figures, None)
    assert "promise nothing of a single one" in text
    assert facts["rank correlation with the targets (Spearman)"].startswith("0.9")
