"""The panels on which people decide: for each name that a head gives, a template, and a script of the same name.

A template ``panels/NAME.html`` has the macros ``controls(head)``, what people use; ``help(head)``, its keys; and
``answer(head, answer)``, what a model says. It may set ``accepts_first``, whether the button that accepts comes
before the controls, and ``whys``, reasons to skip. A script ``panels/NAME.js`` adds a class to ``PANELS``; see
``panels.js``. On the panel ``several`` all of them work as they are, one in the document at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollout.heads import Head
from rollout.review.item import ReviewItem

SHOWN_SCORES = 5
# Without the letters that have a meaning on the page.
TOGGLES = "1234567890" + "abcdfgijklmnoqruvxy"
MOST_BUTTONS = len(TOGGLES)
FOLDER = Path(__file__).parent / "static" / "panels"


class Bar(NamedTuple):
    """One score.

    Attributes:
        label: The class.
        score: From 0 to 1.
        is_answer: Whether it is what the model answered, or a part of that.
    """

    label: str
    score: float
    is_answer: bool


class Key(NamedTuple):
    """A label of the model.

    Attributes:
        label: Its name.
        key: What to press for it; nothing where there are too many.
    """

    label: str
    key: str


def panel_data(item: ReviewItem) -> dict[str, Any]:
    """Returns what a panel's script shows of an item: what somebody says who accepts it, as such and in words.

    Of several heads it says that of each as well, and which are unsure.
    """
    heads = {name: _accepted(head, answer) for name, (head, answer) in item.head.each(item.answer).items()}
    unsure = [name for name in heads if name in (item.unsure or "").split(", ")]
    return {**_accepted(item.head, item.answer), "heads": heads, "unsure": unsure}


def _accepted(head: Head, answer: Mapping[str, Any]) -> dict[str, Any]:
    accepted = head.accepted(answer)
    if accepted is None:
        return {"accepted": None, "said": None}
    return {"accepted": accepted.said, "said": accepted.in_words()}


def panel_files(suffix: str) -> list[str]:
    """Returns the scripts or the style sheets of all panels, as ``static`` names them."""
    return sorted(f"{FOLDER.name}-{path.name}" for path in FOLDER.iterdir() if path.suffix == suffix)


def keys_of(labels: Sequence[str]) -> list[Key]:
    """Returns what to press for each label: digits for themselves, otherwise the first to the ninth."""
    if all(len(label) == 1 and label in "0123456789" for label in labels):
        return [Key(label, label) for label in labels]
    few = len(labels) <= 9
    return [Key(label, str(number) if few else "") for number, label in enumerate(labels, start=1)]


def toggles_of(labels: Sequence[str]) -> list[Key]:
    """Returns what to press to switch each label on or off: as ``keys_of``, and letters where there are more."""
    keys = keys_of(labels)
    if keys and not keys[0].key and len(labels) <= MOST_BUTTONS:
        return [Key(label, key) for label, key in zip(labels, TOGGLES, strict=False)]
    return keys


def bars(answers: Collection[str], scores: Mapping[str, float]) -> list[Bar]:
    """Returns the highest scores, highest first, as many at least as there are answers."""
    highest = sorted(scores.items(), key=lambda pair: -pair[1])[: max(SHOWN_SCORES, len(answers))]
    return [Bar(label, score, label in answers) for label, score in highest]
