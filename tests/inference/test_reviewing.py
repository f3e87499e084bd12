"""What is kept of a prediction that goes to review."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from rollout.bundle.task import Classification
from rollout.inference.reviewing import review_item
from rollout.inference.rows import Answers, Decision, Rows
from rollout.review.item import ReviewItem
from rollout.review.policy import ReviewPolicy
from rollout.review.sampling import Sampler
from rollout.routing.assignment import Assignment
from rollout.routing.split import Split

ADA = {"name": "Ada", "born": "1815-12-10", "income": 3}


def item(sent: Mapping[str, Any], *redact: str, key: str | None = None, scores: float = 0.4) -> ReviewItem:
    """Returns the item of one row."""
    task = Classification(labels=["no", "yes"], review_threshold=0.6)
    sampler = Sampler("loans")
    sampler.policy = ReviewPolicy(redact=[*redact])
    version = SimpleNamespace(manifest=SimpleNamespace(task=task))
    model: Any = SimpleNamespace(name="loans", sampler=sampler, versions={"v1": version})
    rows = Rows(["c-1"], [key], {}, [sent], 0.0)
    decision = Decision(1, [1 - scores, scores], needs_review=True)
    assigned = [Assignment("champion", "v1", 0.5)]
    split = Split(champion="v1")
    answers = Answers(split, task, assigned, {"v1": "onnx"}, [decision], {}, {}, 0.0, 0.0, 1_700_000_000.0)
    return review_item(model, rows, answers, 0, "low_confidence", 1.0)


def test_the_same_inputs_are_the_same_item_without_a_key_and_linked_with_one() -> None:
    assert item(ADA) == item(ADA)
    assert item(ADA).id != item(ADA | {"income": 4}).id
    one, other = item(ADA, key="k-1"), item(ADA, key="k-2")
    assert one.id != other.id
    assert one.same == other.same != item(ADA | {"income": 4}).same


@pytest.mark.parametrize("key", [None, "k-1"])
def test_what_is_redacted_cannot_be_guessed_from_what_is_kept(key: str | None) -> None:
    """Whatever would be the same for another date of birth tells nothing of this one."""
    kept = item(ADA, "born", key=key)
    assert msgspec.json.decode(kept.inputs) == ADA | {"born": None}
    assert kept == item(ADA | {"born": "1906-12-09"}, "born", key=key)
    assert kept.same != item(ADA | {"income": 4}, "born", key=key).same
    assert kept.same != item(ADA, "born", key=key, scores=0.41).same, "a reviewer would see another one"
