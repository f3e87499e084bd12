"""Decisions in columns: parts of versions with other layouts, and what is counted of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from rollout import Classification, Embedding, Heads
from rollout.errors import PredictionFailedError
from rollout.inference.arm_counters import ArmCounters
from rollout.inference.decisions import Decisions, decide

WRONG = PredictionFailedError("no light")
ANIMALS = Classification(labels=["cat", "lion", "dog"])
TRANSLATE = ANIMALS.translation(Classification(labels=["dog", "cat"]), {"lion": "cat"})


def decisions(*numbers: list[float], **errors: Any) -> Decisions:
    return Decisions(np.array(numbers), np.zeros(len(numbers), bool), errors.get("errors"))


def test_parts_of_other_widths_stand_together_and_come_apart_again() -> None:
    narrow, wide = decisions([1, 0.4, 0.6]), decisions([0, 0.5, 0.3, 0.2])
    whole = Decisions.placed([([1], narrow), ([0], wide)], 2)
    assert np.isnan(whole.numbers[1, 3])
    assert whole.rows([1], 3).numbers.tolist() == narrow.numbers.tolist()
    assert whole.row(0).numbers == [0, 0.5, 0.3, 0.2]


def test_a_translation_keeps_which_rows_failed_and_which_are_looked_at() -> None:
    part = Decisions(np.array([[2, 0.3, 0.3, 0.4], [np.nan] * 4]), np.array([True, False]), {1: WRONG})
    translated = part.translated(TRANSLATE)
    assert (translated.row(0).numbers, translated.row(0).needs_review) == ([1, 0.4, 0.6], True)
    assert translated.errors == {1: WRONG}
    assert part.translated(None) is part
    failed = Decisions.failed(2, WRONG)
    assert failed.translated(TRANSLATE) is failed, "they have no columns"


def test_what_is_beyond_the_precision_in_which_it_goes_out_fails_alone() -> None:
    half = Embedding(size=2, dtype="float16")
    vectors = np.array([[1, 2], [70_000, 1], [3, np.nan], [65_504, 4]], np.float32)
    assert decide(half, vectors).errors.keys() == {1, 2}
    assert decide(Embedding(size=2), vectors).errors.keys() == {2}
    several = Heads(heads={"vector": half, "animal": ANIMALS})
    assert decide(several, np.concatenate([vectors, np.full((4, 3), 1 / 3, np.float32)], 1)).errors.keys() == {
        1,
        2,
    }


def counted(confidences: list[float]) -> dict[str, int]:
    version: Any = SimpleNamespace(model="counted", version="v1", variant="onnx", baseline=None)
    counts = ArmCounters("champion", "v1", version, None, len(confidences) + 1)
    counts.count(3, confidences, (), 0.01)
    for tally in (counts._answered, counts._seconds, counts._confidence):
        tally.flush()
    return {name: count for (_, _, name), count in counts.take()}


def test_rows_are_counted_whether_or_not_they_have_confidences() -> None:
    with_none, with_three = counted([]), counted([0.5, 0.6, 0.99])
    assert with_none["predictions"] == with_three["predictions"] == 3
    assert not [name for name in with_none if name.startswith("confidence.")]
    assert sum(count for name, count in with_three.items() if name.startswith("confidence.")) == 3
