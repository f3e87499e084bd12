"""Quantiles that do not cross, and intervals between the outermost that hold what they say."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.stats

from rollout import Quantiles, RolloutError
from rollout.heads import Truth
from rollout.heads.measured import Evaluated

LEVELS = [0.1, 0.5, 0.9]
HEAD = Quantiles(levels=LEVELS, margin=0.5, widest=3.0)
SCORES = np.array([[1, 2, 3], [5, 4, 9]], np.float32)


def test_quantiles_are_in_order_and_the_interval_goes_beyond_them() -> None:
    first, second = (HEAD.answer(row) for row in HEAD.numbers(SCORES).tolist())
    assert first._asdict() == {"value": 2, "quantiles": {"0.1": 1, "0.5": 2, "0.9": 3}, "interval": (0.5, 3.5)}
    assert (second.value, second.quantiles["0.1"], second.interval) == (5, 4, (3.5, 9.5))
    assert HEAD.needs_review(SCORES).tolist() == [False, True]
    between = Quantiles(levels=[0.2, 0.6])
    assert between.answer(between.numbers(SCORES[:1, :2]).tolist()[0]).value == pytest.approx(1.75)
    assert HEAD.loss(first._asdict(), Truth(value=3.4)) == 0
    assert HEAD.loss(first._asdict(), Truth(value=3.6)) == 1
    assert HEAD.accepted(first._asdict()) == Truth(value=2)
    assert HEAD.studio_truth([HEAD.studio_result(first._asdict())[0]["value"]]) == Truth(value=2)
    assert HEAD.says(first._asdict()) == "2 (0.5 to 3.5)"
    assert HEAD.flipped(SCORES, SCORES + np.float32(0.2)).tolist() == [True, False]
    assert HEAD.flipped(SCORES, SCORES[:, ::-1]).any() == False  # noqa: E712  crossed, they are the same
    rows = HEAD.numbers(SCORES).tolist()
    assert not HEAD.agree(rows[0], rows[1])
    assert HEAD.distance(rows[0], rows[1]) == pytest.approx(6 / 1.5)


def test_the_loss_is_least_at_the_quantile() -> None:
    targets = np.random.default_rng(0).exponential(size=4000)
    head = Quantiles(levels=[0.2, 0.7])
    right = scipy.stats.expon.ppf([0.2, 0.7])
    losses = [
        head.losses(np.tile(right + moved, (4000, 1)).astype(np.float32), targets).mean()
        for moved in (-0.2, 0, 0.2)
    ]
    assert losses[1] == min(losses)
    assert head.answer_losses(np.ones(1), np.array([3.0])) == pytest.approx([(0.2 + 0.7) / 2 * 2])


@pytest.mark.parametrize("levels", [[0.5], [0.5, 0.5], [0.9, 0.1], [0.0, 0.5]])
def test_levels_that_make_no_sense(levels: list[float]) -> None:
    with pytest.raises(RolloutError, match="ascending between 0 and 1"):
        Quantiles(levels=levels).calibrated(np.zeros((90, len(levels)), np.float32), np.zeros(90))


def draw(generator: np.random.Generator, rows: int) -> tuple[Any, Any]:
    """Quantiles of a normal that is half as wide as the targets are."""
    centre = generator.normal(size=(rows, 1))
    return (centre + np.array([-0.6, 0, 0.6])).astype(np.float32), centre[:, 0] + generator.normal(size=rows)


def test_intervals_hold_what_they_say() -> None:
    generator, splits = np.random.default_rng(0), 300
    held = []
    for _ in range(splits):
        head, _ = Quantiles(levels=LEVELS).calibrated(*draw(generator, 60))
        outputs, targets = draw(generator, 500)
        held.append(head.right(head.scores(outputs), targets).mean())
    error = scipy.stats.sem(held)
    assert 0.8 - 3 * error < np.mean(held) < 0.8 + 1 / 61 + 3 * error + 0.01


def test_figures_say_so() -> None:
    generator = np.random.default_rng(1)
    calibration, evaluation = draw(generator, 600), draw(generator, 600)
    head, _ = Quantiles(levels=LEVELS, coverage=0.9).calibrated(*calibration)
    scores = head.scores(evaluation[0])
    figures, diagram = head.measured(Evaluated(calibration, evaluation[0], scores, evaluation[1]))
    assert figures["coverage"] == pytest.approx(0.9, abs=0.04)
    assert figures["share_below_0.1"] == pytest.approx(scipy.stats.norm.cdf(-0.6), abs=0.05)
    assert head.mean_loss(figures) == pytest.approx(head.losses(scores, evaluation[1]).mean())
    assert "<svg" in diagram
    text, facts = head.report(figures, None)
    assert text.startswith(
        "Intervals are to hold 90.0% of the targets: the outermost quantiles, moved outwards by 1."
    )
    wide = msgspec.structs.replace(head, margin=-0.03)
    assert "the outermost quantiles, moved inwards by 0.03, as" in wide.report(figures, None)[0]
    assert facts["targets below quantile 0.1"].endswith("%")
    with pytest.raises(RolloutError, match=r"too few for intervals that cover 90\.0%"):
        Quantiles(levels=LEVELS, coverage=0.9).calibrated(*draw(generator, 8))
