"""What every kind of answer is looked at by, to see whether it is like that on the evaluation part."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rollout.heads import (
    Boxes,
    Classification,
    Embedding,
    Head,
    Heads,
    MultiLabel,
    Output,
    Quantiles,
    Regression,
    Score,
    Targets,
    Tensors,
    TokenLabels,
)
from rollout.heads.reading import kinds
from rollout.judge.baseline import Baseline

AB = ["a", "b"]
CLASSES = Classification(labels=["a", "b", "c"])
# A head, and what its answers are looked at by.
KINDS: dict[str, tuple[Head, list[str]]] = {
    "classification": (CLASSES, ["label", "confidence"]),
    "set": (Classification(labels=AB, alpha=0.1), ["label", "confidence", "set_size"]),
    "multi-label": (MultiLabel(labels=AB), ["labels", "first", "confidence"]),
    "regression": (Regression(), ["value", "width"]),
    "targets": (Targets(names=["low", "high"]), ["low", "high"]),
    "quantiles": (Quantiles(levels=[0.1, 0.5, 0.9]), ["value", "width"]),
    "score": (Score(), [""]),
    "few numbers": (Embedding(size=3), ["0", "1", "2"]),
    "embedding": (Embedding(size=40), ["mean", "deviation", "smallest", "largest", "missing_share"]),
    "tensors": (Tensors(outputs_by_name={"mask": Output(shape=(2,))}), ["mask.0", "mask.1"]),
    "boxes": (Boxes(labels=AB, candidates=5, most=3), ["boxes", "label", "area", "confidence"]),
    "token labels": (TokenLabels(labels=AB, positions=4), ["spans", "characters", "confidence"]),
    "heads": (Heads(heads={"one": CLASSES, "two": Score()}), ["one.label", "one.confidence", "two"]),
}


def scores_of(head: Head) -> NDArray[np.float32]:
    outputs = np.random.default_rng(0).random((50, head.width)).astype(np.float32)
    return head.scores(outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_looked_at_by(kind: str) -> None:
    head, names = KINDS[kind]
    numbers = head.numbers(scores_of(head))
    found = head.features(numbers)
    assert [*found] == names
    assert all(each.values.shape == (50,) for each in found.values())
    assert not any(np.isinf(each.values).any() for each in found.values())
    confidences = head.confidences(numbers)
    if "confidence" in found:
        assert np.abs(found["confidence"].values / 100 - np.asarray(confidences)).max() <= 0.005 + 1e-9
    assert [*head.features(numbers[:0])] == names
    Baseline.of(found).measure(head.features(numbers[:0]))


@pytest.mark.parametrize("kind", KINDS)
def test_answers_that_are_not_known_are_missing(kind: str) -> None:
    head, names = KINDS[kind]
    nothing = head.features(np.full((3, head.columns), np.nan))
    assert [*nothing] == names
    for name, each in nothing.items():
        if name != "missing_share":
            assert np.isnan(each.values).all(), name


def test_every_kind_of_head_is_among_them() -> None:
    ours = {kind for kind in kinds() if kind.__module__.startswith("rollout.")}
    assert {type(head) for head, _ in KINDS.values()} == ours


def test_the_label_is_the_one_that_is_answered() -> None:
    numbers = CLASSES.numbers(scores_of(CLASSES))
    label = CLASSES.features(numbers)["label"]
    answered = [CLASSES.answer(row).label for row in numbers.tolist()]
    assert [label.categories[int(code)] for code in label.values] == answered
