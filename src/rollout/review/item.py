"""A review item: one prediction that a person should look at, as it is kept in Redis and shown."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

Reason = Literal["low_confidence", "disagreement"]


class ReviewItem(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction on its way through review, keyed by (model, client_id, key).

    Attributes:
        id: Follows from client ID and key, so that a repeated request makes no second item.
        model: The model.
        client_id: The caller's own ID of the client.
        key: The caller's own ID of the prediction, if it gave one.
        state: Where it is on its way.
        reason: Why it is here.
        pi: Probability with which it got here, for weighted estimates; never 0.
        at: When it was predicted, ISO 8601 in UTC.
        arm: The client's arm.
        version: The version that answered.
        variant: The variant that answered.
        revision: Revision of the split under which it was decided.
        threshold: The confidence that it missed, or the width that its interval exceeded.
        label: The most likely class, of a classification.
        confidence: Its score.
        scores: All scores by class.
        value: The value, of a regression.
        interval: The two ends of the interval around it.
        other: What the challenger made of it unseen, if it was asked: its version and its answer.
        inputs: The inputs as the caller sent them, JSON.
    """

    id: str
    model: str
    client_id: str
    key: str | None
    state: Literal["open"] = "open"
    reason: Reason
    pi: float
    at: str
    arm: str
    version: str
    variant: str
    revision: int
    threshold: float
    label: str | None = None
    confidence: float | None = None
    scores: dict[str, float] | None = None
    value: float | None = None
    interval: tuple[float, float] | None = None
    other: dict[str, Any] | None = None
    inputs: msgspec.Raw


def item_id(client_id: str, key: str | None, inputs: bytes) -> str:
    """Returns the ID of the item for this prediction: 32 hexadecimal digits.

    Without a key, the same inputs from the same client are the same item.
    """
    identity = [client_id, key] if key is not None else [client_id, None, hashlib.sha256(inputs).hexdigest()]
    return hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]
