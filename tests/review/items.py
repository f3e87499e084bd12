"""Review items to test with."""

from __future__ import annotations

from typing import Any

import msgspec

from rollout.review.item import ReviewItem, item_id


def make_item(number: int, **changes: Any) -> ReviewItem:
    """Returns an item; those of another number have another client, key and time."""
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
        "label": "3",
        "confidence": 0.4,
        "threshold": 0.6,
        "scores": {"3": 0.4, "8": 0.35},
        "same": item_id(f"client-{number}", None, b"{}"),
        "inputs": msgspec.Raw(b'{"image":[[1]]}'),
    }
    return ReviewItem(**(fields | changes))
