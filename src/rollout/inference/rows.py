"""The rows of a request on their way through the engine. Everything about a caller travels with its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from rollout.bundle.schema import Arrays
from rollout.bundle.task import Classification, Task
from rollout.review.log import Fate
from rollout.routing.assignment import Arm, Assignment


class Rows(msgspec.Struct):
    """What one request asks for.

    Attributes:
        client_ids: For each row the caller's own ID of the client.
        keys: For each row the caller's own ID of the prediction, if any.
        arrays: For each field an array of shape ``(rows, *field.shape)``.
        sent: For each row the value of each input, as the caller sent it.
        deadline: ``time.monotonic()`` after which nobody waits for the answer.
    """

    client_ids: Sequence[str]
    keys: Sequence[str | None]
    arrays: Arrays
    sent: Sequence[Mapping[str, Any]]
    deadline: float


class Decision(NamedTuple):
    """What a version makes of a row.

    Attributes:
        best: Index of the most likely class; 0 for a regression.
        numbers: The score of each class, or the value and the two ends of its interval; to six decimals.
        needs_review: Whether a person should look at it.
    """

    best: int
    numbers: list[float]
    needs_review: bool


class Answers(NamedTuple):
    """What the engine makes of the rows of a request, in their order.

    Attributes:
        assignments: Arm and version of each row.
        variants: The variant that scores for each version.
        decisions: What that version decided.
        fates: What became of the rows that go to review, by index.
        waited: Seconds that the rows waited for their batch, at most.
        ran: Seconds that their batches took.
    """

    assignments: list[Assignment]
    variants: Mapping[str, str]
    decisions: list[Decision]
    fates: dict[int, Fate | None]
    waited: float
    ran: float


class ClassAnswer(NamedTuple):
    """The most likely class, its score, and all scores by class."""

    label: str
    confidence: float
    scores: dict[str, float]


class ValueAnswer(NamedTuple):
    """A value, and the two ends of the interval around it."""

    value: float
    interval: tuple[float, float]


class _Header(msgspec.Struct):
    model: str
    version: str
    variant: str
    arm: Arm
    client_id: str
    key: str | None


class ClassPrediction(_Header):
    """The answer of a classification to one row, as it goes out."""

    label: str
    confidence: float
    scores: dict[str, float]
    review: Fate | None


class ValuePrediction(_Header):
    """The answer of a regression to one row, as it goes out."""

    value: float
    interval: tuple[float, float]
    review: Fate | None


Prediction = ClassPrediction | ValuePrediction


def to_answer(task: Task, decision: Decision) -> ClassAnswer | ValueAnswer:
    """Puts a decision in the terms of its task."""
    best, numbers, _ = decision
    if isinstance(task, Classification):
        return ClassAnswer(task.labels[best], numbers[best], dict(zip(task.labels, numbers, strict=True)))
    value, low, high = numbers
    return ValueAnswer(value, (low, high))


def make_predictions(model: str, task: Task, rows: Rows, answers: Answers) -> list[Prediction]:
    """Joins what is known of the rows with what was decided on them.

    Args:
        model: The model.
        task: Its task, in any version: they have the same labels.
        rows: What was asked for.
        answers: What the engine made of it.
    """
    kind: type[Any] = ClassPrediction if isinstance(task, Classification) else ValuePrediction
    return [
        kind(
            model,
            version,
            answers.variants[version],
            arm,
            client_id,
            key,
            *to_answer(task, decision),
            answers.fates.get(index),
        )
        for index, ((arm, version, _), decision, client_id, key) in enumerate(
            zip(answers.assignments, answers.decisions, rows.client_ids, rows.keys, strict=True)
        )
    ]
