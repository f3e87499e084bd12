"""A review item: one prediction that a person should look at, as it is kept in Redis and shown."""

from __future__ import annotations

import datetime
import hashlib
import re
from functools import lru_cache
from typing import Any, Literal

import msgspec

Reason = Literal["low_confidence", "disagreement", "audit"]

# How many seconds the item that is most worth a look gets ahead of one that is worth none.
LARGEST_LEAD_S = 24 * 3600
GONE = msgspec.Raw(b"null")


class ReviewItem(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction on its way through review, keyed by (model, client_id, key).

    Attributes:
        id: Follows from client ID and key, so that a repeated request makes no second item.
        model: The model.
        client_id: The caller's own ID of the client.
        key: The caller's own ID of the prediction, if it gave one.
        reason: Why it is here.
        pi: Probability with which it got here, for weighted estimates; never 0.
        at: When it was predicted, ISO 8601 in UTC.
        arm: The client's arm.
        version: The version that answered.
        variant: The variant that answered.
        revision: Revision of the split under which it was decided.
        threshold: The confidence below which review begins, or the width above which; ``None`` without one.
        label: The most likely class, of a classification.
        confidence: Its score.
        scores: All scores by class.
        value: The value, of a regression.
        interval: The two ends of the interval around it.
        other: What the challenger made of it unseen, if it was asked: its version and its answer.
        same: What the predictions with the same inputs for the same client have in common.
        inputs: The inputs as the caller sent or could have sent them, JSON; ``null`` once they are gone.
        traceparent: The trace of the request (W3C Trace Context), to find it in the caller's own logs.
        linked_to: The item of the same inputs under another key, if this prediction is only linked to it.
    """

    id: str
    model: str
    client_id: str
    key: str | None
    reason: Reason
    pi: float
    at: str
    arm: str
    version: str
    variant: str
    revision: int
    threshold: float | None
    label: str | None = None
    confidence: float | None = None
    scores: dict[str, float] | None = None
    value: float | None = None
    interval: tuple[float, float] | None = None
    other: dict[str, Any] | None = None
    same: str
    inputs: msgspec.Raw = msgspec.field(default_factory=lambda: GONE)
    traceparent: str | None = None
    linked_to: str | None = None  # the last: a script writes it at the end of the JSON

    @property
    def has_inputs(self) -> bool:
        """Whether the inputs are still kept."""
        return bytes(self.inputs) != b"null"

    @property
    def value_of_a_look(self) -> float:
        """How much a look at it is expected to be worth, from 0 to 1.

        An uncertain one is worth more the smaller the margin between the two likeliest classes (Settles, "Active
        Learning Literature Survey", 2009, 3.1), or the wider the interval; one that the versions disagree on, at
        least a half. An audit is worth its place in the row: it must be a fair sample.
        """
        if self.reason == "audit":
            return 0.0
        if self.scores is not None and len(self.scores) > 1:
            second, first = sorted(self.scores.values())[-2:]
            uncertainty = 1 - (first - second)
        elif self.interval is not None:
            width = self.interval[1] - self.interval[0]
            uncertainty = 0.0 if self.threshold is None else width / (width + self.threshold)
        else:
            uncertainty = 0.0
        return (1 + uncertainty) / 2 if self.reason == "disagreement" else uncertainty

    @property
    def rank(self) -> float:
        """The place in the queue, least first: seconds since 1970, less what a look is worth: nothing starves."""
        return milliseconds(self.at) / 1000 - LARGEST_LEAD_S * self.value_of_a_look


ITEM_ID = re.compile("[0-9a-f]{32}")
"""What ``item_id`` returns."""


def item_id(client_id: str, key: str | None, inputs: bytes, secret: bytes = b"") -> str:
    """Returns the ID of the item for this prediction: 32 hexadecimal digits.

    Without a key, the same inputs from the same client are the same item. The ID is kept longer than the inputs:
    they go into it under a secret that is not kept with it, so that nobody can find them by trying.
    """
    identity = [client_id, key] if key is not None else [client_id, None, _keyed(inputs, secret)]
    return hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]


def same_inputs(client_id: str, inputs: bytes, secret: bytes = b"") -> str:
    """Returns what the same inputs of the same client have in common: 32 hexadecimal digits."""
    return _keyed(msgspec.json.encode(client_id) + inputs, secret)


def _keyed(inputs: bytes, secret: bytes) -> str:
    return hashlib.blake2b(inputs, key=secret, digest_size=16).hexdigest()


@lru_cache  # of one batch, all have one time
def milliseconds(at: str) -> int:
    """Returns a time in ISO 8601, UTC where it does not say, in milliseconds since 1970.

    Raises:
        ValueError: If it is not one.
    """
    moment = datetime.datetime.fromisoformat(at)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)
