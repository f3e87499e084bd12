"""Items that wait for reviewers, of several kinds of models."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from rollout.review.item import ReviewItem
from rollout.review.queue import add_items
from rollout.store import Redis
from tests.review.items import make_guess, make_item, written
from tests.service.console.stage import BIRDS, DIGITS, FLIGHTS, LANGUAGES

PIXELS = [[0, 0, 5, 13, 9, 1, 0, 0]] * 8
SONG = [0.0, 0.5, -0.5, 0.25] * 2000


def make_digit(number: int, **changes: Any) -> ReviewItem:
    """Returns an item of ``digits``; the model takes it for the last digit of its number."""
    label = str(number % 10)
    scores = {digit: 0.4 if digit == label else round(0.6 / 9, 4) for digit in DIGITS}
    inputs = msgspec.Raw(msgspec.json.encode({"image": [[number % 256] * 8, *PIXELS[1:]]}))
    return make_item(number, **({"label": label, "scores": scores, "inputs": inputs} | changes))


def make_text(number: int, text: str = "Ein Text", **changes: Any) -> ReviewItem:
    """Returns an item of ``languages``, taken for German."""
    scores = {language: 0.4 if language == "de" else 0.075 for language in LANGUAGES}
    inputs = msgspec.Raw(msgspec.json.encode({"text": text}))
    return make_item(
        number, **({"model": "languages", "label": "de", "scores": scores, "inputs": inputs} | changes)
    )


def make_hour(number: int, **changes: Any) -> ReviewItem:
    """Returns an item of ``departures``, a regression."""
    inputs = msgspec.Raw(b'{"at":"2013-07-12T16:00:00Z","origin":"LGA"}')
    return make_guess(number, 11.25, (3.5, 19.0), **({"model": "departures", "inputs": inputs} | changes))


def make_song(number: int, **changes: Any) -> ReviewItem:
    """Returns an item of ``birds``: sound, and more classes than there are keys."""
    scores = {bird: 0.25 if bird == "wren" else 0.05 for bird in BIRDS}
    inputs = msgspec.Raw(msgspec.json.encode({"song": SONG}))
    return make_item(
        number, **({"model": "birds", "label": "wren", "scores": scores, "inputs": inputs} | changes)
    )


def make_flight(number: int, unsure: str = "minutes, cause", **changes: Any) -> ReviewItem:
    """Returns an item of ``flights``, which has several heads."""
    answer = {
        "late": {"label": "yes", "confidence": 0.9, "scores": {"no": 0.1, "yes": 0.9}},
        "minutes": {"value": 11.25, "interval": [3.5, 19.0]},
        "cause": {
            "label": "carrier",
            "confidence": 0.4,
            "scores": {"weather": 0.35, "carrier": 0.4, "airport": 0.25},
        },
        "topics": {"topics": ["travel"]},
        "place": {"place": 3},
    }
    fields = {
        "model": "flights",
        "task": written(FLIGHTS),
        "answer": {"heads": answer},
        "unsure": unsure,
        "inputs": msgspec.Raw(b'{"at":"2013-07-12T16:00:00Z","origin":"LGA"}'),
    }
    return make_item(number, **(fields | changes))


async def put(redis: Redis, *items: ReviewItem) -> None:
    """Puts items into the queue."""
    assert all(await add_items(redis, items, sys.maxsize))
