"""What was taken for what, by classes, sets, spans, boxes and several heads."""

from __future__ import annotations

import numpy as np

from rollout import Classification, Heads, MultiLabel, Regression, Truth, targets_of
from rollout.heads import Span
from rollout.heads.confusion import Confusion
from tests.heads import detector, tagging

CLASSES = Classification(labels=["cat", "dog", "owl"])
SETS = MultiLabel(labels=["food", "sport"])


def by_pair(found: list[Confusion]) -> dict[tuple[str, str], tuple[list[int], int]]:
    return {(one.truth, one.answer): (one.rows.tolist(), one.of) for one in found}


def test_classes_are_grouped_by_what_they_were_taken_for() -> None:
    answers = np.array([0, 1, 1, 1, 2, 0])
    targets = np.array([0, 0, 0, 1, 2, 2])
    scores = np.eye(3, dtype=np.float32)[answers]
    found = CLASSES.confusions(scores, targets)
    assert by_pair(found) == {("cat", "dog"): ([1, 2], 3), ("owl", "cat"): ([5], 2)}
    assert [len(one.rows) for one in found] == [2, 1]
    assert CLASSES.confusions(scores, answers) == []


def test_of_sets_each_label_is_missed_or_answered_in_vain() -> None:
    scores = np.array([[0.9, 0.9], [0.1, 0.9], [0.9, 0.1]], np.float32)
    targets = np.array([[1, 0], [1, 1], [0, 0]], bool)
    assert by_pair(SETS.confusions(scores, targets)) == {
        ("food", "not food"): ([1], 2),
        ("not food", "food"): ([2], 1),
        ("not sport", "sport"): ([0], 2),
    }
    assert [SETS.target_in_words(row) for row in targets] == ["food", "food, sport", "no label"]
    assert CLASSES.target_in_words(targets[0].astype(int)[0]) == "dog"


def test_spans_are_missed_made_up_or_have_another_label_or_other_ends() -> None:
    head = tagging.HEAD
    said = head.targets([Truth(spans=[Span(0, 3, "name"), Span(5, 7, "number"), Span(10, 12, "name")])])
    true = head.targets(
        [Truth(spans=[Span(0, 4, "name"), Span(5, 7, "name"), Span(20, 22, "number"), Span(30, 31, "name")])]
    )
    text = tagging.TEXT.encode(["x" * tagging.WIDTH])
    scores = np.concatenate([np.eye(3)[said[0]].ravel(), text[0]]).astype(np.float32)[None]
    assert by_pair(head.confusions(scores, true)) == {
        ("name", "name, other ends"): ([0], 1),
        ("name", "number"): ([0], 1),
        ("number", "no span"): ([0], 1),
        ("name", "no span"): ([0], 1),
        ("no span", "name"): ([0], 1),
    }
    assert head.confusions(scores, said) == []
    assert head.target_in_words(said[0]) == "name 0–3, number 5–7, name 10–12"


def test_boxes_are_missed_made_up_or_have_another_label_or_other_edges() -> None:
    head = detector.HEAD
    part = detector.pictures(np.random.default_rng(3), 60)
    outputs = detector.outputs_of(part.inputs["image"])
    scores = head.scores(outputs)
    right = np.flatnonzero((head.losses(scores, part.targets) == 0) & ~np.isnan(part.targets[:, 0, 0]))[:4]
    changed = part.targets.copy()
    changed[right[0], 0, 0] = 1 - changed[right[0], 0, 0]
    changed[right[1], 0] = np.nan
    changed[right[2], 0, 1:] = [0.0, 0.0, 0.02, 0.02]
    found = by_pair(head.confusions(scores[right], changed[right]))
    own, other, *_ = (detector.LABELS[int(part.targets[row, 0, 0])] for row in right)
    assert found[(({"lamp": "wall", "wall": "lamp"})[own], own)][0] == [0]
    assert 1 in found["no box", other][0]
    assert any(
        truth != "no box" and answer == "no box" and 2 in rows for (truth, answer), (rows, _) in found.items()
    )
    assert not any(3 in rows for rows, _ in found.values())
    assert head.target_in_words(np.full((4, 5), np.nan)) == "no box"


def test_several_heads_have_their_own_of_the_rows_that_are_known() -> None:
    heads = Heads(heads={"kind": CLASSES, "size": Regression(half_width=1.0), "tags": SETS})
    unknown = np.ma.masked_array([[0, 0], [1, 0], [0, 0]], mask=[[True] * 2, [False] * 2, [True] * 2])
    targets = targets_of(kind=[0, 1, 2], size=[1.0, 2.0, 3.0], tags=unknown)
    scores = np.concatenate(
        [np.eye(3)[[0, 2, 2]], [[1.0, 1.0]] * 3, [[0.1, 0.1], [0.1, 0.9], [0.9, 0.1]]], axis=1
    ).astype(np.float32)
    assert by_pair(heads.confusions(scores, targets)) == {
        ("kind: dog", "owl"): ([1], 1),
        ("tags: food", "not food"): ([1], 1),
        ("tags: not sport", "sport"): ([1], 1),
    }
    assert [heads.target_in_words(row) for row in targets] == [
        "kind cat; size 1",
        "kind dog; size 2; tags food",
        "kind owl; size 3",
    ]
