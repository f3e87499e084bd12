"""Which predictions a person should look at, and what is kept of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from rollout.clock import utc_now
from rollout.inference.rows import Answers, Decision, Rows, to_answer
from rollout.inference.served import ServedModel
from rollout.review.item import Reason, ReviewItem, item_id


class Other(NamedTuple):
    """What the challenger made of a row that the champion answered."""

    version: str
    decision: Decision


def review_item(
    model: ServedModel,
    rows: Rows,
    answers: Answers,
    index: int,
    reason: Reason,
    pi: float,
    other: Other | None = None,
) -> ReviewItem:
    """Puts a row and its answer together for review.

    Args:
        model: The model.
        rows: What was asked for.
        answers: What was answered.
        index: The row.
        reason: Why a person should look at it.
        pi: The probability with which it got here.
        other: What the challenger made of it, if it was asked too.
    """
    client_id, key = rows.client_ids[index], rows.keys[index]
    inputs = msgspec.json.encode(rows.sent[index])
    version = answers.version(index)
    unseen: dict[str, Any] | None = None
    if other is not None:
        unseen = {"version": other.version, **to_answer(answers.task, other.decision)._asdict()}
    return ReviewItem(
        id=item_id(client_id, key, inputs),
        model=model.name,
        client_id=client_id,
        key=key,
        reason=reason,
        pi=pi,
        at=utc_now("milliseconds"),
        arm=answers.assignments[index].arm,
        version=version,
        variant=answers.variants[version],
        revision=answers.split.revision,
        threshold=model.versions[version].manifest.task.review_limit,
        inputs=msgspec.Raw(inputs),
        other=unseen,
        **to_answer(answers.task, answers.decisions[index])._asdict(),
    )
