"""A classification that answers with the best few scores, and with a set that holds the truth as often as it says."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.stats

from rollout import Classification, RolloutError
from rollout.heads.measured import Evaluated

LABELS = ["a", "b", "c", "d"]
SCORES = np.array([[0.1, 0.2, 0.3, 0.4], [0.96, 0.02, 0.01, 0.01], [0.3, 0.3, 0.3, 0.1]], np.float32)
MANY = [f"label-{place:04}" for place in range(5000)]


def answers(head: Classification) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(head.answer(row)._asdict()) for row in head.numbers(SCORES).tolist()]


def test_without_options_an_answer_is_what_it_was() -> None:
    head = Classification(labels=LABELS)
    assert msgspec.json.encode(answers(head)[0]) == (
        b'{"label":"d","confidence":0.4,"scores":{"a":0.1,"b":0.2,"c":0.3,"d":0.4}}'
    )
    assert list(head.declared()) == ["label", "confidence", "scores"]
    assert head.signature == ("Classification", *LABELS)


def test_the_best_scores_alone() -> None:
    head = Classification(labels=LABELS, best=2)
    assert [answer["scores"] for answer in answers(head)] == [
        {"d": 0.4, "c": 0.3},
        {"a": 0.96, "b": 0.02},
        {"a": 0.3, "b": 0.3},
    ]
    numbers = head.numbers(SCORES)
    assert head.tensor("best", numbers) == ["d", "c", "a", "b", "a", "b"]
    assert np.asarray(head.tensor("scores", numbers)) == pytest.approx(
        np.array([[0.4, 0.3], [0.96, 0.02], [0.3, 0.3]])
    )
    assert head.declared()["best"] == ("BYTES", (2,))
    assert head.keys_of("scores") is None
    assert head.distance(*numbers[:2].tolist()) == Classification(labels=LABELS).distance(
        *Classification(labels=LABELS).numbers(SCORES)[:2].tolist()
    )
    assert head.signature != Classification(labels=LABELS).signature
    with pytest.raises(RolloutError, match="the best 5 of 4 labels"):
        Classification(labels=LABELS, best=5).calibrated(*draw(np.random.default_rng(0), 99))


def test_five_thousand_classes_are_a_few_bytes() -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(5000), 1).astype(np.float32)
    head = Classification(labels=MANY, best=5)
    (row,) = head.numbers(scores).tolist()
    assert len(msgspec.json.encode(head.answer(row)._asdict())) < 250


def test_a_set_is_all_that_reaches_its_threshold_and_never_empty() -> None:
    head = Classification(labels=LABELS, alpha=0.1, set_threshold=0.25)
    assert [answer["labels"] for answer in answers(head)] == [["d", "c"], ["a"], ["a", "b", "c"]]
    assert list(answers(head)[0]) == ["label", "confidence", "labels", "scores"]
    high = Classification(labels=LABELS, alpha=0.1, set_threshold=0.99)
    assert [answer["labels"] for answer in answers(high)] == [["d"], ["a"], ["a", "b", "c"]]  # as likely
    assert np.asarray(head.tensor("set", head.numbers(SCORES))).tolist()[1] == [True, False, False, False]
    assert head.declared()["set"] == ("BOOL", (4,))


def test_what_callers_do_not_tell_apart_is_one() -> None:
    """The set of another version is made with its own threshold."""
    head = Classification(labels=LABELS, alpha=0.1, best=2, set_threshold=0.25)
    meanings = {"c": "b"}
    public = Classification(labels=["b", "a", "d"], alpha=0.1, best=2, set_threshold=0.9)
    translate = head.translation(public, meanings)
    assert translate is not None
    first, second, third = (public.answer(row) for row in translate(head.numbers(SCORES)).tolist())
    assert (first.label, first.labels, first.scores) == ("b", ["b", "d"], {"b": 0.5, "d": 0.4})
    assert (second.labels, second.scores) == (["a"], {"a": 0.96, "b": 0.03})
    assert (third.label, third.labels) == ("b", ["b", "a"])


def draw(generator: np.random.Generator, rows: int) -> tuple[Any, Any]:
    """Logits of four classes, of which one is drawn with other probabilities."""
    logits = generator.normal(scale=1.5, size=(rows, 4)).astype(np.float32)
    noisy = logits * 0.7 + generator.gumbel(size=logits.shape)
    return logits, noisy.argmax(1)


def test_sets_hold_the_truth_as_often_as_they_say() -> None:
    """The mean over calibration parts is promised, and no more than ``1 / (rows + 1)`` above it is given away."""
    generator, alpha, splits = np.random.default_rng(0), 0.2, 100
    held, size = [], []
    for _ in range(splits):
        task = Classification(labels=LABELS, alpha=alpha, risk=0.9, review_threshold=0.0)
        head, _ = task.calibrated(*draw(generator, 90))
        outputs, targets = draw(generator, 500)
        numbers = head.numbers(head.scores(outputs))
        sets = np.asarray(head.tensor("set", numbers))
        held.append(sets[np.arange(len(sets)), targets].mean())
        size.append(sets.sum(1).mean())
    error = scipy.stats.sem(held)
    assert 1 - alpha - 3 * error < np.mean(held) < 1 - alpha + 1 / 61 + 3 * error + 0.01
    assert 1 < np.mean(size) < 4


def test_figures_say_so() -> None:
    generator = np.random.default_rng(3)
    calibration, evaluation = draw(generator, 300), draw(generator, 300)
    head, review = Classification(labels=LABELS, alpha=0.1).calibrated(*calibration)
    figures = head.measured(
        Evaluated(calibration, evaluation[0], head.scores(evaluation[0]), evaluation[1])
    ).figures
    assert figures["set_coverage"] == pytest.approx(0.9, abs=0.06)
    _, facts = head.report(figures, review)
    assert facts["sets of labels hold the truth"] == "90.0% of the time"
    assert facts["labels in a set"].endswith("on average")
    with pytest.raises(RolloutError, match="too few for sets that hold the truth"):
        Classification(labels=LABELS, alpha=0.001).calibrated(*calibration)
