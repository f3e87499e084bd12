"""A review item as a reviewer sees it: what it is, and apart from that what the models made of it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from rollout.bundle.fields import Field
from rollout.review.actions import Leased
from rollout.review.item import ReviewItem, milliseconds
from service.console.inputs import show_inputs
from service.console.panels import panel_data
from service.console.render import render

REASONS = {
    "low_confidence": "the model was unsure",
    "disagreement": "two versions decide differently",
    "suspect_label": "the label that the data have may be wrong",
    "audit": "a random check of what nothing else sends here",
}


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
        # Who decides between two versions, or between one and a label, does not accept an answer unseen.
        **(panel_data(item) if item.other is None and item.is_traffic else {"accepted": None, "said": None}),
        "html": render(
            "item.html",
            item=item,
            inputs=inputs,
            reason=reason_of(item),
            age=age(item.at, datetime.datetime.now(datetime.UTC)),
            reviews=leased.reviews,
            why=leased.why,
        ),
        "model_answer": render("model_answer.html", item=item, answers=answers(item)),
    }


def age(at: str, now: datetime.datetime) -> str:
    """Says how long ago something was, in its largest unit.

    Args:
        at: When, ISO 8601 in UTC.
        now: What time it is, aware.
    """
    seconds = max(0, int(now.timestamp() - milliseconds(at) / 1000))
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            number = seconds // size
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return "less than a minute"


def reason_of(item: ReviewItem) -> str:
    """Says why an item is here; of what is for a trial, only that: which version was unsure tells them apart."""
    return f"{REASONS[item.reason_shown]}{f', for the trial of {item.trial}' if item.trial else ''}"


def answers(item: ReviewItem) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns what was said of an item, each under a title; of two versions nobody sees which one said what."""
    titles = [f"{item.version} says"] if item.other is None else ["One version says", "The other says"]
    return list(zip(titles, item.said, strict=True))
