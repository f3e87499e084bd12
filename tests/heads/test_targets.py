"""Several numbers: intervals that hold each of them, or all together, as often as they say."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.stats

from rollout import Classification, Heads, RolloutError, Targets
from rollout.heads import Truth
from rollout.heads.measured import Evaluated

HEAD = Targets(names=["low", "high"], half_widths=[1.0, 2.0], scales=[1.0, 4.0], widest={"high": 3.0})
WITH_SPREADS = Targets(names=["low", "high"], spreads=True, half_widths=[1.0, 2.0], widest=3.0)
SCORES = np.array([[1.0, 10.0], [2.0, 20.0]], np.float32)


def test_an_answer_has_a_value_and_an_interval_for_each() -> None:
    numbers = HEAD.numbers(SCORES)
    first, second = (HEAD.answer(row) for row in numbers.tolist())
    assert first.values == {"low": 1, "high": 10}
    assert second.intervals == {"low": (1, 3), "high": (18, 22)}
    assert np.asarray(HEAD.tensor("intervals", numbers))[1].tolist() == [[1, 3], [18, 22]]
    assert HEAD.in_words(SCORES[0]) == "low 1 ± 1, high 10 ± 2"
    assert HEAD.needs_review(SCORES).all()
    assert not Targets(names=["low", "high"], half_widths=[1.0, 2.0]).needs_review(SCORES).any()
    assert HEAD.policy == "predictions with a wider interval than 3 for high go to review"
    assert HEAD.uncertainty(first._asdict()) == 4 / 7
    assert HEAD.agree(numbers[0], numbers[0] + 0.9)
    assert not HEAD.agree(numbers[0], numbers[0] + 1.1)
    assert HEAD.distance(numbers[0], numbers[0] + 3) == 3


def test_what_moves_by_more_than_a_tenth_of_its_half_interval_is_another_answer() -> None:
    moved = SCORES + np.array([[0.05, 0.19], [0.11, 0]], np.float32)
    assert HEAD.flipped(SCORES, moved).tolist() == [False, True][: len(SCORES)]
    assert HEAD.flipped(SCORES, SCORES * np.nan).all()
    assert HEAD.distances(SCORES, moved) == pytest.approx([0.05, 0.11], abs=1e-5)


def test_spreads_make_intervals_as_wide_as_they_say() -> None:
    outputs = np.array([[1, 10, 0.5, 2]], np.float32)
    scores = WITH_SPREADS.scores(outputs)
    assert scores.tolist() == [[1, 10, 0.5, 4]]
    assert WITH_SPREADS.answer(WITH_SPREADS.numbers(scores).tolist()[0]).intervals == {
        "low": (0.5, 1.5),
        "high": (6, 14),
    }
    assert WITH_SPREADS.needs_review(scores).tolist() == [True]
    with pytest.raises(RolloutError, match="spread that is not positive"):
        WITH_SPREADS.calibrated(outputs * np.float32(-1), np.ones((1, 2)))


def test_what_people_say_has_every_target() -> None:
    answer = HEAD.answer(HEAD.numbers(SCORES).tolist()[0])._asdict()
    assert HEAD.loss(answer, Truth(values={"low": 1.5, "high": 9})) == 0
    assert HEAD.loss(answer, Truth(values={"low": 1.5, "high": 19})) == 0.5
    assert HEAD.truth_distance(Truth(values={"low": 1, "high": 9}), Truth(values={"low": 1, "high": 8})) == 0.5
    assert dict(HEAD.faults(Truth(values={"low": float("nan"), "middle": 1}))) == {
        "/values/middle": "is none of low, high",
        "/values/low": "must be a number that float32 holds",
        "/values/high": "is required",
    }
    regions = HEAD.studio_result(answer)
    said = [{**region["value"], "from_name": region["from_name"]} for region in reversed(regions)]
    assert HEAD.studio_truth(said) == HEAD.accepted(answer)
    both = Heads(heads={"prices": HEAD, "way": Classification(labels=["up", "down"])}, judged_by="prices")
    whole = {"heads": {"prices": answer, "way": {"label": "up", "confidence": 1.0, "scores": {"up": 1.0}}}}
    said = [{**region["value"], "from_name": region["from_name"]} for region in both.studio_result(whole)]
    assert [each["from_name"] for each in said] == ["prices.low", "prices.high", "way"]
    assert both.studio_truth(said) == both.accepted(whole)
    with pytest.raises(ValueError, match="no number for high"):
        HEAD.studio_truth([{"number": 3, "from_name": "low"}])
    with pytest.raises(RolloutError, match=r"of shape \(rows, 2\)"):
        HEAD.check_targets(np.ones((5, 3)))
    with pytest.raises(RolloutError, match="middle has a widest interval"):
        Targets(names=["low"], widest={"middle": 1}).calibrated(SCORES[:, :1], SCORES[:, :1])


def test_another_order_is_put_right() -> None:
    other = Targets(names=["high", "low"], half_widths=[2.0, 1.0])
    translate = other.translation(HEAD, {})
    assert translate is not None
    assert other.signature == HEAD.signature
    (row,) = translate(other.numbers(SCORES[:1, ::-1])).tolist()
    assert HEAD.answer(row) == HEAD.answer(HEAD.numbers(SCORES).tolist()[0])
    assert HEAD.translation(HEAD, {}) is None


def draw(generator: np.random.Generator, rows: int) -> tuple[Any, Any]:
    """Values and spreads of three targets with heavy tails, whose errors go together."""
    spread = generator.uniform(0.5, 2, size=(rows, 3))
    value = generator.normal(size=(rows, 3))
    error = generator.standard_t(4, size=(rows, 3)) + generator.normal(size=(rows, 1))
    return np.hstack([value, spread]).astype(np.float32), value + error * spread * [1, 5, 0.2]


@pytest.mark.parametrize("joint", [False, True])
def test_intervals_hold_what_they_say(joint: bool) -> None:
    generator, coverage, splits = np.random.default_rng(0), 0.8, 200
    task = Targets(names=["a", "b", "c"], spreads=True, coverage=coverage, joint=joint)
    held = []
    for _ in range(splits):
        head, _ = task.calibrated(*draw(generator, 90))
        outputs, targets = draw(generator, 500)
        _, low, high = np.split(head.numbers(head.scores(outputs)), 3, axis=1)
        inside = (low <= targets) & (targets <= high)
        held.append(inside.all(1).mean() if joint else inside.mean(0))
    found, error = np.mean(held, axis=0), scipy.stats.sem(held)
    assert (found > coverage - 3 * error).all()
    assert (found < coverage + 1 / 60 + 3 * error + 0.01).all()


def test_figures_say_so() -> None:
    generator = np.random.default_rng(1)
    calibration, evaluation = draw(generator, 600), draw(generator, 600)
    for joint in (False, True):
        head, _ = Targets(names=["a", "b", "c"], spreads=True, joint=joint).calibrated(*calibration)
        scores = head.scores(evaluation[0])
        figures, diagram = head.measured(Evaluated(calibration, evaluation[0], scores, evaluation[1]))
        assert figures["joint_coverage" if joint else "coverage"] == pytest.approx(0.9, abs=0.04)
        assert figures["joint_coverage"] < figures["coverage"]
        assert figures["mean_absolute_error_b"] > 5 * figures["mean_absolute_error_c"]
        scaled = np.abs(scores[:, :3] - evaluation[1]) / calibration[1].std(0)
        assert head.mean_loss(figures) == pytest.approx(scaled.mean(), rel=1e-5)
        assert "<svg" in diagram
        text, facts = head.report(figures, None)
        assert ("all their targets" in text) == joint
        assert facts["intervals of b"].startswith("hold ")
    with pytest.raises(RolloutError, match="too few for intervals that cover"):
        Targets(names=["a", "b", "c"], spreads=True, coverage=0.99).calibrated(*draw(generator, 90))


def test_it_is_kept_as_json() -> None:
    for head in (HEAD, WITH_SPREADS):
        assert msgspec.json.decode(msgspec.json.encode(head), type=Targets) == head
