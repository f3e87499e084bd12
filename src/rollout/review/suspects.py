"""Rows of a recipe whose labels look wrong, as review items: no traffic, and each of them once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from rollout.errors import ConfigError
from rollout.heads import Head
from rollout.review.item import SUSPECT, ReviewItem, item_id, same_inputs
from rollout.review.policy import read_policy
from rollout.review.queue import Budget, add_items, read_items
from rollout.review.state import iso
from rollout.store import Redis, server_time


class Doubted(msgspec.Struct, frozen=True, kw_only=True):
    """A row whose label looks wrong, for people to look at. The label itself is not among it: it would bias them.

    Attributes:
        part: The part of the data.
        key: What tells it from others, with its label.
        inputs: Its inputs as a caller could have sent them, JSON.
        answer: What the version answered, in plain values.
    """

    part: str
    key: str
    inputs: msgspec.Raw
    answer: dict[str, Any]


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """What became of them.

    Attributes:
        queued: Items that are new.
        already_there: Rows that the queue had, decided or not.
        kept_out: Rows for which the queue has no room.
    """

    queued: int
    already_there: int
    kept_out: int


async def queue_suspects(
    redis: Redis,
    model: str,
    version: str,
    variant: str,
    head: Head,
    rows: Sequence[Doubted],
    *,
    fields: Collection[str],
    limit: int,
    budget: Budget,
    secret: bytes,
) -> Queued:
    """Puts rows into the review queue that are not there yet.

    Args:
        redis: Connection.
        model: The model.
        version: The version that doubts them.
        variant: What ran it.
        head: What it answers.
        rows: The rows.
        fields: The names of the inputs.
        limit: Most open items of the model.
        budget: What its items may weigh.
        secret: What hashes are keyed with that outlive the inputs.

    Raises:
        ConfigError: If the model's policy redacts an input: what tells rows apart is a hash of all of them, and
            is kept.
        StoreUnavailableError: If Redis does not answer.
    """
    policy = await read_policy(redis, model)
    if redacted := sorted({*policy.redact} & {*fields}):
        raise ConfigError(
            f"the review policy of {model} redacts {', '.join(redacted)}, and a hash of it would be kept: "
            "nothing was queued"
        )
    at, task = iso(await server_time(redis, model) // 1000), msgspec.Raw(msgspec.json.encode(head))
    items = []
    for row in rows:
        client_id = f"recipe:{row.part}"
        items.append(
            ReviewItem(
                id=item_id(client_id, row.key, b""),
                model=model,
                client_id=client_id,
                key=row.key,
                reason=SUSPECT,
                pi=1.0,
                at=at,
                arm="none",
                version=version,
                variant=variant,
                revision=0,
                threshold=None,
                answer=row.answer,
                same=same_inputs(client_id, bytes(row.inputs), secret),
                inputs=row.inputs,
                task=task,
            )
        )
    there = {item.id for item, _ in await read_items(redis, model, [one.id for one in items])}
    new = [item for item in items if item.id not in there]
    kept = await add_items(redis, new, limit, {model: policy}, budget)
    return Queued(queued=sum(kept), already_there=len(items) - len(new), kept_out=len(kept) - sum(kept))
