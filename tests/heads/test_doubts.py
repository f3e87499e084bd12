"""Which labels look wrong: planted ones are found, of every kind, and right ones are left alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from rollout import (
    Classification,
    Embedding,
    Heads,
    MultiLabel,
    Quantiles,
    Regression,
    Score,
    Targets,
    targets_of,
)
from rollout.errors import ConfigError
from rollout.heads import Head
from rollout.heads.doubts import Suspects
from tests.heads import detector, tagging

CLASSES = Classification(labels=["cat", "dog", "owl"])
SETS = MultiLabel(labels=["food", "sport"])


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a good model, and the classes that are true."""
    chance = np.random.default_rng(seed)
    true = chance.integers(0, 3, rows)
    logits = chance.normal(0, 1, (rows, 3)) + 5 * np.eye(3)[true]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return scores.astype(np.float32), true


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


@pytest.mark.parametrize(("coverage", "noise"), [(0.5, "normal"), (0.9, "normal"), (0.9, "laplace")])
def test_planted_numbers_are_found_whatever_intervals_are_to_cover(coverage: float, noise: str) -> None:
    chance = np.random.default_rng(5)
    spread = chance.uniform(1, 4, 1000)
    values = chance.normal(100, 30, 1000)
    true = values + 3 + spread * getattr(chance, noise)(size=1000)  # it says too little, everywhere alike
    head, _ = Regression(coverage=coverage).calibrated(np.stack([values, spread], 1).astype(np.float32), true)
    scores = head.scores(np.stack([values, spread], axis=1).astype(np.float32))
    allowed = {"normal": 0, "laplace": 16}[noise]
    assert len(head.suspects(scores, true).rows) <= allowed
    planted = chance.choice(1000, 20, replace=False)
    given = true.copy()
    given[planted[:10]] *= 1000  # another unit
    given[planted[10:]] += 20 * spread[planted[10:]]
    found = head.suspects(scores, given)
    assert set(planted.tolist()) <= set(found.rows.tolist())
    assert len(found.rows) <= 20 + allowed
    assert set(found.rows[:20].tolist()) == set(planted.tolist())
    assert ((found.quality >= 0) & (found.quality < 0.05)).all()


def test_a_number_looks_wrong_by_the_width_of_its_own_interval() -> None:
    """The same error is large where the model is sure, and nothing where it says itself that it is not."""
    chance = np.random.default_rng(6)
    spread = np.where(np.arange(400) < 200, 0.1, 10.0)
    values = chance.normal(0, 1, 400)
    true = values + spread * chance.normal(size=400)
    true[[0, 300]] = values[[0, 300]] + 8
    outputs = np.stack([values, spread], axis=1).astype(np.float32)
    head, _ = Regression().calibrated(outputs, true)
    assert head.suspects(head.scores(outputs), true).rows.tolist() == [0]


def test_planted_quantiles_and_targets_are_found() -> None:
    chance = np.random.default_rng(7)
    values = chance.normal(0, 1, (500, 2)) * [1, 100]
    true = values + chance.normal(0, 1, (500, 2)) * [0.1, 10]
    true[7, 0] += 3  # nothing beside the other target, whose errors are as large
    true[9, 1] -= 200
    targets, _ = Targets(names=["rate", "price"]).calibrated(values.astype(np.float32), true)
    assert set(targets.suspects(targets.scores(values.astype(np.float32)), true).rows.tolist()) == {7, 9}
    assert targets.target_in_words(np.array([0.5, 120.0])) == "rate 0.5, price 120"
    levels = (values[:, :1] + 0.1 * np.array([-1.28, 0, 1.28])).astype(np.float32)
    quantiles, _ = Quantiles(levels=[0.1, 0.5, 0.9]).calibrated(levels, true[:, 0])
    assert quantiles.suspects(quantiles.scores(levels), true[:, 0]).rows.tolist() == [7]


def test_a_perfect_model_of_numbers_doubts_no_rounding() -> None:
    values = np.arange(100, dtype=np.float32)
    head, _ = Regression().calibrated(np.stack([values, np.ones(100)], axis=1).astype(np.float32), values)
    scores = head.scores(np.stack([values * (1 + 1e-7), np.ones(100)], axis=1).astype(np.float32))
    assert not len(head.suspects(scores, values).rows)
    given = values.copy()
    given[4] = 40
    assert head.suspects(scores, given).rows.tolist() == [4]


def test_planted_spans_are_found() -> None:
    part = tagging.part(400, 8)
    head = tagging.HEAD
    outputs = tagging.outputs(part)
    head, _ = head.calibrated(outputs, part.targets)
    scores = head.scores(outputs)
    before = set(head.suspects(scores, part.targets).rows.tolist())
    sure = np.flatnonzero(head.losses(scores, part.targets) == 0)
    planted = [row for row in sure.tolist() if (part.targets[row] == 1).sum() > 2][:10]
    given = part.targets.copy()
    for row in planted[:5]:
        given[row][given[row] == 1] = 2  # names as numbers
    for row in planted[5:]:
        given[row] = 0  # overlooked
    found = head.suspects(scores, given)
    assert len(set(planted) & set(found.rows.tolist())) >= 9
    assert (head.losses(scores[found.rows], given[found.rows]) > 0).all()
    assert (np.diff(found.quality) >= 0).all()
    assert len(set(found.rows.tolist()) - set(planted) - before) <= 5


def test_planted_boxes_are_found() -> None:
    part = detector.pictures(np.random.default_rng(9), 300)
    outputs = detector.outputs_of(part.inputs["image"])
    head, _ = detector.HEAD.calibrated(outputs, part.targets)
    scores = head.scores(outputs)
    assert len(head.suspects(scores, part.targets).rows) <= 15
    best = head.detect(scores).scores[:, 0]
    sure = np.flatnonzero(
        (head.losses(scores, part.targets) == 0) & (best > 0.97) & (head.detect(scores).number == 1)
    )
    given = part.targets.copy()
    given[sure[0], 0] = np.nan  # overlooked
    given[sure[1], 0, 0] = 1 - given[sure[1], 0, 0]  # another label
    given[sure[2], 0, 1:] = [0.0, 0.0, 0.1, 0.1]  # elsewhere
    given[sure[3], 1] = [0, 0.9, 0.9, 1.0, 1.0]  # nothing is there
    found = head.suspects(scores, given)
    assert set(sure[:4].tolist()) <= set(found.rows.tolist())
    assert set(found.rows.tolist()) - set(sure[:4].tolist()) <= set(
        head.suspects(scores, part.targets).rows.tolist()
    )


def test_each_of_several_heads_says_which_of_its_labels_look_wrong() -> None:
    scores, true = drawn(500, 10)
    chance = np.random.default_rng(11)
    values = chance.normal(0, 1, 500)
    sizes = values + chance.normal(0, 0.1, 500)
    sizes[3:14] += 5
    true[4:14] = (true[4:14] + 1) % 3
    unknown = np.ma.masked_array(sizes, mask=np.arange(500) == 3)  # nobody said it
    heads = Heads(heads={"kind": CLASSES, "size": Regression(half_width=0.2), "same": Embedding(size=2)})
    given = np.concatenate([scores, values[:, None], np.full((500, 1), 0.2), np.ones((500, 2))], axis=1)
    found: Suspects = heads.suspects(given.astype(np.float32), targets_of(kind=true, size=unknown))
    said = dict(zip(found.rows.tolist(), found.heads, strict=True))
    assert sum(said.get(row) == "kind, size" for row in range(4, 14)) >= 8
    assert {row for row, heads in said.items() if "size" in heads} == set(range(4, 14))


@pytest.mark.parametrize(
    "head", [Score(), Embedding(size=2), Heads(heads={"rank": Score()})], ids=["score", "embedding", "heads"]
)
def test_other_kinds_are_refused(head: Head) -> None:
    targets = targets_of(rank=[1.0, 2.0]) if isinstance(head, Heads) else np.zeros(2)
    with pytest.raises(
        ConfigError, match=r"nothing tells a label that looks wrong from others in (Score|Embedding)"
    ):
        head.suspects(np.zeros((2, head.outputs), np.float32), targets)


def test_without_cleanlab_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(ConfigError, match=r"pip install 'rollout\[labels\]'"):
        CLASSES.suspects(*drawn(30, 1))
