"""A row on its way through the engine, and what comes out. Everything about a caller travels inside its row."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from rollout.bundle.schema import Arrays, RawInputs
from rollout.review.log import Fate
from rollout.routing.assignment import Arm, Assignment

UNASSIGNED = Assignment("champion", "", None)


class Row(msgspec.Struct):
    """One instance to be scored.

    Attributes:
        client_id: The caller's own ID of the client.
        key: The caller's own ID of the prediction, if any.
        arrays: For each field an array of ``field.shape``.
        sent: The JSON value of each input, byte for byte as the caller sent it.
        deadline: ``time.monotonic()`` after which nobody waits for the answer.
        assignment: The client's arm, once the engine has decided on it.
    """

    client_id: str
    key: str | None
    arrays: Arrays
    sent: RawInputs
    deadline: float
    assignment: Assignment = UNASSIGNED


class ClassAnswer(msgspec.Struct, frozen=True):
    """The most likely class, its score, and all scores by class."""

    label: str
    confidence: float
    scores: dict[str, float]


class ValueAnswer(msgspec.Struct, frozen=True):
    """A value, and the two ends of the interval around it."""

    value: float
    interval: tuple[float, float]


class Decision(NamedTuple):
    """What a version makes of a row.

    Attributes:
        answer: A class or a value.
        needs_review: Whether a person should look at it.
    """

    answer: ClassAnswer | ValueAnswer
    needs_review: bool


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


def make_prediction(
    model: str, variant: str, row: Row, answer: ClassAnswer | ValueAnswer, review: Fate | None
) -> Prediction:
    """Joins what is known of a row with what was decided on it."""
    version, arm = row.assignment.version, row.assignment.arm
    if isinstance(answer, ClassAnswer):
        return ClassPrediction(
            model,
            version,
            variant,
            arm,
            row.client_id,
            row.key,
            answer.label,
            answer.confidence,
            answer.scores,
            review,
        )
    return ValuePrediction(
        model, version, variant, arm, row.client_id, row.key, answer.value, answer.interval, review
    )
