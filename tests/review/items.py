"""Review items to test with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rollout.heads import Classification, Head, Regression
from rollout.review.item import ReviewItem, item_id

SCORES = {"3": 0.4, "8": 0.35}
WIDEST = 12.0


def make_item(
    number: int,
    *,
    label: str = "3",
    confidence: float = 0.4,
    scores: Mapping[str, float] = SCORES,
    **changes: Any,
) -> ReviewItem:
    """Returns an item of a classification; those of another number have another client, key and time."""
    fields: dict[str, Any] = {
        "id": item_id(f"client-{number}", f"key-{number}", b"{}"),
        "model": "digits",
        "client_id": f"client-{number}",
        "key": f"key-{number}",
        "reason": "low_confidence",
        "pi": 1.0,
        "at": f"2026-11-22T10:00:{number % 60:02}.{number % 1000:03}Z",
        "arm": "control",
        "version": "v1",
        "variant": "onnx",
        "revision": 1,
        "threshold": 0.6,
        "task": written(Classification(labels=list(scores), review_threshold=0.6)),
        "answer": {"label": label, "confidence": confidence, "scores": dict(scores)},
        "same": item_id(f"client-{number}", None, b"{}"),
        "inputs": msgspec.Raw(b'{"image":[[1]]}'),
    }
    return ReviewItem(**(fields | changes))


def make_guess(
    number: int, value: float = 9.0, interval: Sequence[float] = (4.0, 14.0), **changes: Any
) -> ReviewItem:
    """Returns an item of a regression."""
    fields: dict[str, Any] = {
        "threshold": WIDEST,
        "task": written(Regression(widest=WIDEST)),
        "answer": {"value": value, "interval": list(interval)},
    }
    return make_item(number, **(fields | changes))


def written(head: Head) -> msgspec.Raw:
    """Returns a head as an item has it."""
    return msgspec.Raw(msgspec.json.encode(head))
