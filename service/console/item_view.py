"""A review item as a reviewer sees it: what it is, and apart from that what the models made of it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rollout.bundle.fields import Field
from rollout.review.actions import Leased
from rollout.review.item import ReviewItem
from service.console.inputs import show_inputs
from service.console.render import render

SHOWN_SCORES = 5
REASONS = {
    "low_confidence": "the model was unsure",
    "disagreement": "the challenger decides differently",
    "audit": "a random check of what nothing else sends here",
}


class Bar(NamedTuple):
    """One score.

    Attributes:
        label: The class.
        score: From 0 to 1.
        is_answer: Whether it is what the model answered.
    """

    label: str
    score: float
    is_answer: bool


class Key(NamedTuple):
    """A class of the model.

    Attributes:
        label: Its name.
        key: What to press for it; nothing where there are too many.
    """

    label: str
    key: str


def item_view(leased: Leased, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Returns an item for the reviewers' page, in plain values.

    Args:
        leased: The item.
        fields: The model's input schema.
    """
    item = leased.item
    inputs = show_inputs(fields, item)
    return {
        "id": item.id,
        "token": leased.token,
        "until": leased.until,
        "name": f"{item.key or item.id[:8]} of {item.client_id}",
        "label": item.label,
        "value": None if item.value is None else f"{item.value:.6g}",
        "html": render(
            "item.html",
            item=item,
            inputs=inputs,
            reason=REASONS[item.reason],
            age=age(item.at, datetime.datetime.now(datetime.UTC)),
            reviews=leased.reviews,
            why=leased.why,
        ),
        "model_answer": render(
            "model_answer.html", item=item, bars=bars(item.label, item.scores), other=_other(item)
        ),
    }


def keys_of(labels: Sequence[str]) -> list[Key]:
    """Returns what to press for each class: digits for themselves, otherwise the first to the ninth."""
    if all(len(label) == 1 and label in "0123456789" for label in labels):
        return [Key(label, label) for label in labels]
    few = len(labels) <= 9
    return [Key(label, str(number) if few else "") for number, label in enumerate(labels, start=1)]


def bars(answer: str | None, scores: Mapping[str, float] | None) -> list[Bar]:
    """Returns the highest scores, highest first."""
    highest = sorted((scores or {}).items(), key=lambda pair: -pair[1])[:SHOWN_SCORES]
    return [Bar(label, score, label == answer) for label, score in highest]


def age(at: str, now: datetime.datetime) -> str:
    """Says how long ago something was, in its largest unit.

    Args:
        at: When, ISO 8601 in UTC.
        now: What time it is, aware.
    """
    seconds = max(0, int((now - datetime.datetime.fromisoformat(at)).total_seconds()))
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            number = seconds // size
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return "less than a minute"


def _other(item: ReviewItem) -> dict[str, Any] | None:
    """Returns what the challenger made of it, with its highest scores."""
    if item.other is None:
        return None
    return item.other | {"bars": bars(item.other.get("label"), item.other.get("scores"))}
