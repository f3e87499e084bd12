"""Which predictions a person should look at, and what is kept of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from rollout.bundle.schema import InputSchema
from rollout.inference.decisions import Decision
from rollout.inference.rows import Answers, Rows
from rollout.inference.served_model import ServedModel
from rollout.review.item import Reason, ReviewItem, item_id, same_inputs
from rollout.review.sampling import Sampler
from rollout.review.state import iso


class Other(NamedTuple):
    """What the challenger made of a row that the champion answered."""

    version: str
    decision: Decision


class Pick(NamedTuple):
    """A row that goes to review.

    Attributes:
        row: Its index.
        reason: Why a person should look at it.
        pi: The probability with which it got here; ``None`` where it did not, since there are too many.
    """

    row: int
    reason: Reason
    pi: float | None


def pick(sampler: Sampler, rows: Rows, needs_review: NDArray[np.bool_]) -> list[Pick]:
    """Returns the rows that are to be reviewed: the uncertain, and a random few of the others.

    Args:
        sampler: Of the model.
        rows: What was asked for.
        needs_review: Which rows are uncertain, shape ``(rows,)``.
    """
    if not sampler.policy.audit and not needs_review.any():
        return []
    picks = []
    for index, is_unsure in enumerate(needs_review.tolist()):
        identity = identify(rows, index)
        if is_unsure:
            picks.append(Pick(index, "low_confidence", sampler.sample("low_confidence", 1.0, identity)))
        elif sampler.audits(identity):
            picks.append(Pick(index, "audit", sampler.sample("audit", sampler.policy.audit, identity)))
    return picks


def identify(rows: Rows, index: int) -> bytes:
    """Returns what a prediction is told from others by: client and key, or client and inputs."""
    key = rows.keys[index]
    if key is not None:
        return f"{rows.client_ids[index]}\0{key}".encode()
    parts = (array[index].tobytes() for array in rows.arrays.values())
    return b"\0".join((rows.client_ids[index].encode(), b"", *parts))


async def review_items(
    model: ServedModel, rows: Rows, answers: Answers, picks: Iterable[Pick], other: Other | None = None
) -> dict[int, ReviewItem]:
    """Puts rows and their answers together for review, by index; large images in a thread.

    Args:
        model: The model.
        rows: What was asked for.
        answers: What was answered.
        picks: Which rows.
        other: What the challenger made of them, if it was asked too.
    """

    def make() -> dict[int, ReviewItem]:
        return {
            index: review_item(model, rows, answers, index, reason, pi, other)
            for index, reason, pi in picks
            if pi is not None
        }

    return await asyncio.to_thread(make) if model.schema.has_large_images else make()


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

    No hash that is kept knows what is redacted, or else guesses could be tried on it. There, the same is what a
    reviewer would see as the same: the rest of the inputs, and the answer. So without a key, a request that is
    repeated is the same item for as long as the same version answers.

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
    sent = _kept(model.schema, rows, index)
    decision = answers.decisions.row(index)
    answer = answers.task.answer(decision.numbers)
    redacted = dict.fromkeys((sent.keys() | rows.arrays.keys()) & set(model.sampler.policy.redact))
    inputs = _in_one_line(msgspec.json.encode({**sent, **redacted}))
    seen = inputs + msgspec.json.encode(answer) if redacted else inputs
    version = answers.version(index)
    head, encoded = answers.heads[version]
    limit = model.versions[version].manifest.task.review_limit
    unseen: dict[str, Any] | None = None
    if other is not None:
        unseen = {"version": other.version, **answers.task.answer(other.decision.numbers)._asdict()}
    return ReviewItem(
        id=item_id(client_id, key, seen, model.secret),
        model=model.name,
        client_id=client_id,
        key=key,
        reason=reason,
        pi=pi,
        at=iso(round(answers.at * 1000)),
        arm=answers.assignments[index].arm,
        pinned=answers.assignments[index].rule is not None,
        version=version,
        variant=answers.variants[version],
        revision=answers.split.revision,
        threshold=limit if math.isfinite(limit) else None,
        same=same_inputs(client_id, seen, model.secret),
        inputs=msgspec.Raw(inputs),
        traceparent=rows.traceparent(index),
        answer=answer._asdict(),
        unsure=head.unsure(decision.numbers) if decision.needs_review else None,
        task=encoded,
        other=unseen,
    )


def _in_one_line(text: bytes) -> bytes:
    """Returns JSON as it may stand in a spool or an export, an item a line, however a caller laid it out."""
    return msgspec.json.format(text, indent=-1) if b"\n" in text or b"\r" in text else text


def _kept(schema: InputSchema, rows: Rows, index: int) -> dict[str, Any]:
    """Returns what is kept of a row. A value that is missing is left out, however it came: a null is redacted."""
    kept = {
        name: schema.fields[name].keep(value, rows.arrays[name][index])
        if isinstance(value, msgspec.Raw)
        else value
        for name, value in rows.sent[index].items()
    }
    return {name: value for name, value in kept.items() if value is not UNSET}
