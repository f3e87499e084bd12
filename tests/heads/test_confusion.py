"""What was taken for what, and which labels look wrong: planted ones are found, right ones are left alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from rollout import Classification, MultiLabel, Regression
from rollout.errors import ConfigError
from rollout.heads import Head
from rollout.heads.confusion import Confusion

CLASSES = Classification(labels=["cat", "dog", "owl"])
SETS = MultiLabel(labels=["food", "sport"])


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a good model, and the classes that are true."""
    chance = np.random.default_rng(seed)
    true = chance.integers(0, 3, rows)
    logits = chance.normal(0, 1, (rows, 3)) + 5 * np.eye(3)[true]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return scores.astype(np.float32), true


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


def test_planted_classes_are_found_and_the_likeliest_come_first() -> None:
    scores, true = drawn(1000, 1)
    planted = np.random.default_rng(2).choice(1000, 20, replace=False)
    given = true.copy()
    given[planted] = (given[planted] + 1) % 3
    found = CLASSES.suspects(scores, given)
    assert len(set(found.rows.tolist()) & set(planted.tolist())) >= 15
    assert len(set(found.rows.tolist()) - set(planted.tolist())) <= 10
    assert (np.diff(found.quality) >= 0).all()
    assert set(found.rows[:8].tolist()) <= set(planted.tolist())


def test_labels_that_are_right_are_left_alone() -> None:
    assert len(CLASSES.suspects(*drawn(1000, 3)).rows) <= 5


def test_planted_sets_are_found() -> None:
    chance = np.random.default_rng(4)
    true = chance.random((1000, 2)) < 0.4
    scores = (1 / (1 + np.exp(-(6 * true - 3 + chance.normal(0, 1, true.shape))))).astype(np.float32)
    planted = chance.choice(1000, 20, replace=False)
    given = true.copy()
    given[planted, 0] ^= True
    found = set(SETS.suspects(scores, given).rows.tolist())
    assert len(found & set(planted.tolist())) >= 15
    assert len(found - set(planted.tolist())) <= 15


@pytest.mark.parametrize("head", [CLASSES, SETS])
def test_no_rows_have_no_suspects(head: Head) -> None:
    targets = np.zeros((0, 2), bool) if head is SETS else np.zeros(0, int)
    assert not len(head.suspects(np.zeros((0, head.outputs), np.float32), targets).rows)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match="for classes and sets of labels, not for Regression"):
        Regression().suspects(np.zeros((3, 1), np.float32), np.zeros(3))


def test_without_cleanlab_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(ConfigError, match=r"pip install 'rollout\[labels\]'"):
        CLASSES.suspects(*drawn(30, 1))
