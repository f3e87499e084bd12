"""What goes out for a row: to the byte for the kinds that callers know, and for any other by its answer alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from rollout import Classification, Regression
from rollout.heads import Head
from rollout.inference.decisions import Decisions
from rollout.inference.rows import Answers, Prediction, Rows, make_predictions, prediction_type
from rollout.routing.assignment import Assignment
from rollout.routing.split import Split

BEGINS = (
    b'{"model":"loans","version":"v1","variant":"onnx","arm":"champion","fallback":null,"revision":0,'
    b'"client_id":"c-1","key":null,'
)


class TagsAnswer(NamedTuple):
    """The tags that hold."""

    tags: list[str]
    best: float | None


class Tags(msgspec.Struct, Head, frozen=True):
    """A kind that nothing but this test knows."""

    names: tuple[str, ...] = ("red", "green")

    @property
    def columns(self) -> int:
        """A score a tag."""
        return len(self.names)

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """The tags that hold."""
        return TagsAnswer

    def answer(self, row: Any) -> Any:
        """Those at a half or more."""
        return TagsAnswer([name for name, score in zip(self.names, row, strict=True) if score >= 0.5], max(row))


def predictions(head: Head, *rows: list[float]) -> list[Prediction]:
    decisions = Decisions(np.array(rows), np.zeros(len(rows), bool))
    assigned = [Assignment("champion", "v1", 0.5)] * len(rows)
    split, variants = Split(champion="v1"), {"v1": "onnx"}
    answers = Answers(split, head, assigned, variants, {}, decisions, {}, {1: "queued"}, 0.0, 0.0, 0.0)
    asked = Rows(["c-1"] * len(rows), [None] * len(rows), {}, [{}] * len(rows), 0.0)
    return make_predictions("loans", asked, answers)


@pytest.mark.parametrize(
    ("head", "row", "ends"),
    [
        (
            Classification(labels=["no", "yes"]),
            [1, 0.25, 0.75],
            b'"label":"yes","confidence":0.75,"scores":{"no":0.25,"yes":0.75},"review":',
        ),
        (Regression(), [7, 5.5, 8.5], b'"value":7.0,"interval":[5.5,8.5],"review":'),
        (Tags(), [0.75, 0.25], b'"tags":["red"],"best":0.75,"review":'),
    ],
)
def test_the_fields_of_the_answer_stand_between_the_header_and_the_review(
    head: Head, row: list[float], ends: bytes
) -> None:
    encoded = [msgspec.json.encode(one) for one in predictions(head, row, row)]
    assert encoded == [BEGINS + ends + b"null}", BEGINS + ends + b'"queued"}']


def test_an_answer_type_has_one_prediction() -> None:
    made = prediction_type(TagsAnswer)
    assert made is prediction_type(TagsAnswer)
    assert (made.__name__, made.__doc__) == ("TagsPrediction", "The tags that hold.")
    assert type(predictions(Tags(), [1.0, 0.0])[0]) is made
