"""A review item: one prediction that a person should look at, as it is kept in Redis and shown."""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec

from rollout.heads import Head, decode_head
from rollout.heads.reading import require_answer

# Predictions come for the first three; for the last, rows of the data that a version is made from.
Reason = Literal["low_confidence", "disagreement", "audit", "suspect_label"]
OF_TRAFFIC: tuple[Reason, ...] = ("low_confidence", "disagreement", "audit")
SUSPECT: Reason = "suspect_label"

# How many seconds the item that is most worth a look gets ahead of one that is worth none.
LARGEST_LEAD_S = 24 * 3600
GONE = msgspec.Raw(b"null")


class ItemFields(msgspec.Struct, frozen=True, kw_only=True):
    """What people see of one prediction on its way through review, keyed by (model, client_id, key).

    Attributes:
        id: Follows from client ID and key, so that a repeated request makes no second item.
        model: The model.
        client_id: The caller's own ID of the client.
        key: The caller's own ID of the prediction, if it gave one.
        reason: Why it is here.
        pi: Probability with which it got here, for weighted estimates; never 0.
        at: When it was predicted, ISO 8601 in UTC.
        arm: The client's arm; ``none`` of what no client sent.
        version: The version that answered.
        variant: The variant that answered.
        revision: Revision of the split under which it was decided.
        threshold: The figure that sends a prediction to review, such as the confidence below which or the width
            above which it goes there; ``None`` without one.
        answer: What it answered, in plain values, as it went out.
        pinned: Whether a rule put the client into this arm, not the hash: no evidence for a comparison.
        unsure: The head, of several, that sent it here.
        other: What the challenger made of it unseen, where it decides otherwise: its version and its answer. Of
            an item that is here for another reason, also ``pi``, the probability with which it was asked.
        same: What the predictions with the same inputs for the same client have in common.
        inputs: The inputs as the caller sent or could have sent them, JSON; ``null`` once they are gone.
        traceparent: The trace of the request (W3C Trace Context), to find it in the caller's own logs.
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
    answer: dict[str, Any]
    pinned: bool = False
    unsure: str | None = None
    other: dict[str, Any] | None = None
    same: str
    inputs: msgspec.Raw = msgspec.field(default_factory=lambda: GONE)
    traceparent: str | None = None

    @property
    def is_traffic(self) -> bool:
        """Whether it is a prediction that a client asked for, which speaks for others."""
        return self.reason in OF_TRAFFIC


class ReviewItem(ItemFields, frozen=True, kw_only=True):
    """The same as it is kept.

    Attributes:
        task: The head that answered, in the labels that callers see, JSON; very long where there are many labels.
        linked_to: The item of the same inputs under another key, if this prediction is only linked to it.
    """

    task: msgspec.Raw
    linked_to: str | None = None  # the last: a script writes it at the end of the JSON

    @property
    def head(self) -> Head:
        """What answered."""
        return _head(bytes(self.task))

    @property
    def size(self) -> int:
        """How many bytes its inputs have."""
        return memoryview(self.inputs).nbytes

    @property
    def has_inputs(self) -> bool:
        """Whether the inputs are still kept."""
        return bytes(self.inputs) != b"null"

    @property
    def sent(self) -> dict[str, msgspec.Raw]:
        """The inputs that are kept, by name, each in JSON; redacted ones are null."""
        return msgspec.json.decode(self.inputs, type=dict[str, msgspec.Raw])

    @property
    def trial(self) -> str | None:
        """The version for whose trial people are asked; ``None`` where versions do not disagree on it."""
        return None if self.other is None else str(self.other["version"])

    @property
    def reason_shown(self) -> Reason:
        """Why it is here, as reviewers see it: which version was unsure would say which of them answered what."""
        return self.reason if self.other is None else "disagreement"

    @property
    def said(self) -> list[Mapping[str, Any]]:
        """What was answered; of two versions in an order, by a hash of the ID, that hides which said what.

        Who knows which is the new one leans to it or away from it.
        """
        if self.other is None:
            return [self.answer]
        other = {name: value for name, value in self.other.items() if name in self.answer}
        return [self.answer, other] if int(self.id[-1], 16) % 2 else [other, self.answer]

    @property
    def value_of_a_look(self) -> float:
        """How much a look at it is expected to be worth, from 0 to 1.

        An uncertain one is worth what its head says. One that the versions disagree on, at least a half, and of
        two such a hash says which: those that are labelled first speak for the others. An audit is worth its
        place in the row: it must be a fair sample. A label that looks wrong waits behind half of the uncertain.
        """
        if self.reason == "audit":
            return 0.0
        if self.reason == SUSPECT:
            return 0.5
        if self.reason == "disagreement":
            return (1 + int(self.id[:8], 16) / 2**32) / 2
        return self.head.uncertainty(self.answer)

    @property
    def rank(self) -> float:
        """The place in the queue, least first: seconds since 1970, less what a look is worth: nothing starves."""
        return milliseconds(self.at) / 1000 - LARGEST_LEAD_S * self.value_of_a_look

    def check(self, model: str, item_id: str) -> None:
        """Refuses what was changed by hand, so that its parts do not fit each other.

        Args:
            model: The model where it lies.
            item_id: Under which ID.

        Raises:
            ValueError: If it is another item, or of no time or probability.
            TypeError: If the answer is none that its head gives.
            LookupError: Likewise.
            msgspec.DecodeError: If its head is none.
        """
        if (self.model, self.id) != (model, item_id) or self.linked_to == item_id:
            raise ValueError("it says that it is another item")
        if not 0 < self.pi <= 1:
            raise ValueError("pi must be a probability")
        milliseconds(self.at)
        head = self.head  # of which each look takes time where there are many labels
        require_answer(head, self.answer)
        if not math.isfinite(head.uncertainty(self.answer)):
            raise ValueError("nobody can say what a look at it is worth")
        self.check_other()

    def check_other(self) -> None:
        """Refuses what cannot be what the challenger made of it.

        Raises:
            ValueError: If it names no version.
        """
        if self.other is not None and not isinstance(self.other.get("version"), str):
            raise ValueError("it names no version")


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


@lru_cache(maxsize=256)  # a version's items all have the same
def _head(task: bytes) -> Head:
    return msgspec.json.decode(task, type=Head, dec_hook=decode_head)


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
