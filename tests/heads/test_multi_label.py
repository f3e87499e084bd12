"""Several labels: what holds, what is unsure, how far two sets are apart, and what margins promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from rollout import MultiLabel, RolloutError
from rollout.heads import Truth
from rollout.heads.calibration import error_bound
from rollout.heads.label_sets import jaccard_distances
from rollout.heads.measured import Evaluated

HEAD = MultiLabel(
    labels=["food", "sport", "travel"],
    thresholds={"sport": 0.3},
    margins={"food": 0.1, "sport": 0.05, "travel": 0.0},
)
SCORES = np.array([[0.55, 0.3, 0.5], [0.7, 0.1, 0.2], [0.1, 0.6, 0.9]], np.float32)
ANSWERS = [HEAD.answer(row)._asdict() for row in HEAD.numbers(SCORES).tolist()]


def test_a_label_holds_at_its_threshold_and_is_unsure_near_to_it() -> None:
    assert [answer["labels"] for answer in ANSWERS] == [HEAD.labels, ["food"], ["sport", "travel"]]
    assert ANSWERS[0]["scores"] == {"food": 0.55, "sport": 0.3, "travel": 0.5}
    assert ANSWERS[0]["thresholds"] == {"food": 0.5, "sport": 0.3, "travel": 0.5}
    assert HEAD.needs_review(SCORES).tolist() == [True, False, False]
    assert HEAD.confidences(HEAD.numbers(SCORES)) == pytest.approx([0.3, 0.7, 0.6])
    assert HEAD.sureness(SCORES).argmin() == 0
    assert HEAD.says(ANSWERS[2]) == "sport at 0.6, travel at 0.9"
    assert HEAD.in_words(SCORES[1]) == "food at 0.7000"
    assert HEAD.flipped(SCORES, SCORES - np.float32(0.15)).tolist() == [True, False, False]
    assert HEAD.flipped(SCORES, SCORES).any() == False  # noqa: E712
    assert HEAD.uncertainty(ANSWERS[0]) == 1 > HEAD.uncertainty(ANSWERS[1]) > 0
    holding = HEAD.numbers(SCORES).tolist()
    assert not HEAD.agree(holding[0], holding[1])
    assert HEAD.agree(holding[1], HEAD.numbers(SCORES * np.float32(0.9)).tolist()[1])
    assert HEAD.distance(holding[0], holding[1]) == pytest.approx(0.3)


def test_sets_are_apart_by_what_they_do_not_share() -> None:
    def loss(answer: dict[str, Any], *labels: str) -> float | None:
        return HEAD.loss(answer, Truth(labels=list(labels)))

    assert loss(ANSWERS[2], "travel", "sport") == 0
    assert loss(ANSWERS[2], "travel", "food") == pytest.approx(2 / 3)
    assert loss(ANSWERS[2]) == 1
    assert loss({"labels": []}) == 0
    targets = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert HEAD.losses(SCORES, targets) == pytest.approx([1 / 3, 0, 1])
    assert HEAD.right(SCORES, targets).tolist() == [False, True, False]
    assert jaccard_distances(np.zeros((1, 3), bool), np.zeros((1, 3), bool)).tolist() == [0]
    assert HEAD.truth_distance(Truth(labels=["food"]), Truth(labels=["sport", "food"])) == 0.5


def test_faults_are_named_one_by_one() -> None:
    truth = Truth(labels=["food", "war", "food"])
    assert dict(HEAD.faults(truth)) == {
        "/labels/1": "food is there twice",
        "/labels/2": "must be one of food, sport, travel",
    }
    assert dict(HEAD.faults(Truth(label="food"))).keys() == {"/label", "/labels"}
    with pytest.raises(RolloutError, match=r"true or false for each of 3 labels"):
        HEAD.check_targets(np.array([0, 1, 2]))
    with pytest.raises(RolloutError, match="war has a threshold"):
        MultiLabel(labels=["a"], thresholds={"war": 0.5}).calibrated(*draw(np.random.default_rng(0), 30, 1))


def test_other_labels_are_put_in_the_places_of_the_champion() -> None:
    meanings = {"cuisine": "food", "snacks": "food"}
    other = MultiLabel(labels=["travel", "snacks", "sport", "cuisine"], thresholds={"cuisine": 0.8})
    assert set(other.public(meanings).labels) == set(HEAD.labels)
    assert other.public(meanings).thresholds == {"food": 0.8}
    translate = other.translation(HEAD, meanings)
    assert translate is not None
    scores = np.array([[0.9, 0.4, 0.1, 0.75], [0.1, 0.6, 0.9, 0.7]], np.float32)
    first, second = (HEAD.answer(row) for row in translate(other.numbers(scores)).tolist())
    assert (first.labels, first.scores) == (["travel"], {"food": 0.75, "sport": 0.1, "travel": 0.9})
    assert first.thresholds["food"] == 0.8
    assert second.labels == ["food", "sport"]
    assert HEAD.translation(HEAD, {}) is None
    assert HEAD.public({}) is HEAD


def test_label_studio_has_choices() -> None:
    (region,) = HEAD.studio_result(ANSWERS[2])
    assert region == {"type": "choices", "value": {"choices": ["sport", "travel"]}}
    assert HEAD.studio_truth([region["value"]]) == HEAD.accepted(ANSWERS[2])
    assert HEAD.studio_truth([]) == Truth(labels=[])
    with pytest.raises(ValueError, match="something else than choices"):
        HEAD.studio_truth([{"number": 3}])


def draw(generator: np.random.Generator, rows: int, labels: int = 3) -> tuple[Any, Any]:
    """Logits that are twice as sure as they should be."""
    odds = generator.normal(scale=4, size=(rows, labels))
    return (2 * odds).astype(np.float32), generator.random(odds.shape) < 1 / (1 + np.exp(-odds))


def test_what_is_far_from_its_threshold_is_wrong_no_more_often_than_promised() -> None:
    """Through the whole of the calibration, the failure of any label counts."""
    generator = np.random.default_rng(0)
    task = MultiLabel(labels=["a", "b", "c"], risk=0.05, delta=0.2, thresholds={"b": 0.4})
    outputs, targets = draw(generator, 30_000)
    failed = decided = 0
    splits = 40
    for _ in range(splits):
        head, evidence = task.calibrated(*draw(generator, 600))
        assert evidence is not None
        assert head.temperature == pytest.approx(2, rel=0.5)
        scores = head.scores(outputs)
        thresholds, margins = (np.array(list(each.values())) for each in (head.thresholds, head.margins))
        far = np.abs(scores - thresholds) >= margins
        wrong = ((scores >= thresholds) != targets) & far
        decided += int((margins <= 1).sum())
        failed += bool((wrong.sum(0) > 0.05 * far.sum(0)).any())
    assert decided > splits
    assert failed <= scipy.stats.binom.ppf(0.999, splits, 0.2)


def test_figures_and_words_about_calibration() -> None:
    generator = np.random.default_rng(1)
    calibration, evaluation = draw(generator, 900), draw(generator, 900)
    head, review = MultiLabel(labels=["a", "b", "c"], risk=0.05).calibrated(*calibration)
    figures, diagram = head.measured(
        Evaluated(calibration, evaluation[0], head.scores(evaluation[0]), evaluation[1])
    )
    said = head.scores(evaluation[0]) >= 0.5
    assert figures["label_accuracy"] == pytest.approx((said == evaluation[1]).mean())
    assert figures["exact_match"] == pytest.approx((said == evaluation[1]).all(1).mean())
    precision, recall = ((said & evaluation[1]).sum() / each.sum() for each in (said, evaluation[1]))
    assert figures["micro_f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert figures["calibration_error"] < figures["calibration_error_before"] / 2
    assert head.mean_loss(figures) == pytest.approx(head.losses(head.scores(evaluation[0]), evaluation[1]).mean())
    assert "<svg" in diagram
    text, facts = head.report(figures, review)
    assert text.startswith("With probability 95%, for every label at once, at most 5.0%")
    assert facts["a holds from"].startswith("0.5000, unsure within 0.")

    few, review = MultiLabel(labels=["a", "b", "c"], risk=0.01).calibrated(*draw(generator, 90))
    assert few.reviews_everything
    assert few.needs_review(few.scores(evaluation[0])).all()
    assert "no margin keeps the error of a, b, c at 1.0%" in few.report({}, review)[0]

    given, review = MultiLabel(labels=["a", "b", "c"], margins=dict.fromkeys("abc", 0.2)).calibrated(*calibration)
    assert given.margins == dict.fromkeys("abc", 0.2)
    assert review is not None
    assert 0 < review.answered < review.rows == 600
    assert review.bound == error_bound(review.answered_errors, review.answered, 0.05 / 3)
    assert given.report({}, review)[0].startswith("Margins are the author's own.")


def test_an_outcome_needs_no_other_labels() -> None:
    head = MultiLabel(labels=["a", "b", "c"])
    answer = {"labels": ["b"], "scores": {"a": 0.1, "b": 0.9, "c": 0.2}, "thresholds": dict.fromkeys("abc", 0.5)}
    brief = head.brief(answer)
    assert brief == {"labels": ["b"], "scores": {"b": 0.9}}
    assert (head.says(brief), head.loss(brief, Truth(labels=["b"]))) == (head.says(answer), 0.0)
