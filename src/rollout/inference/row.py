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


class Decision(NamedTuple):
    """What a version makes of a row.

    Attributes:
        label: The most likely class.
        confidence: Its score.
        scores: All scores by class.
        needs_review: Whether the confidence lies below the review threshold.
    """

    label: str
    confidence: float
    scores: dict[str, float]
    needs_review: bool


class Prediction(msgspec.Struct):
    """The answer to one row, as it goes out."""

    model: str
    version: str
    variant: str
    arm: Arm
    client_id: str
    key: str | None
    label: str
    confidence: float
    scores: dict[str, float]
    review: Fate | None
