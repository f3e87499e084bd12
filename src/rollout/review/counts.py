"""The queue of a model in figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from rollout.keys import Keys
from rollout.review.item import Reason
from rollout.review.queue import PLACES, read_items
from rollout.review.state import State
from rollout.store import Redis, guard, stored_at


class Entered(msgspec.Struct, frozen=True, kw_only=True):
    """What entered the queue of one kind, or found it full.

    Attributes:
        reason: Why it is there.
        version: The version that answered.
        arm: The arm of the client.
        items: How many predictions entered.
        kept_out: How many a limit kept out.
        weight: How many predictions both stand for: the sum of 1/pi.
    """

    reason: Reason
    version: str
    arm: str
    items: int
    kept_out: int
    weight: float


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """The queue of a model in figures.

    Attributes:
        states: How many items are where, by reason.
        entered: What entered so far, and what limits kept out.
        excess: What did not enter, for being too much, by reason.
        oldest: When the oldest of the open items was predicted, ISO 8601.
    """

    states: dict[State, dict[Reason, int]]
    entered: list[Entered]
    excess: dict[Reason, int]
    oldest: str | None


async def read_counts(redis: Redis, model: str) -> Counts:
    """Returns the queue of a model in figures.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    names = Keys(model)
    async with guard():
        pipe = redis.pipeline(transaction=False)
        for name in ("counts", "entered", "excess"):
            pipe.hgetall(names.reviews(name))
        for place in PLACES[State.OPEN]:
            pipe.zrange(names.reviews(place), 0, 0)
        counts, entered, excess, *first = await pipe.execute()
    oldest = [item_id.decode() for ids in first for item_id in ids]
    heads = await read_items(redis, model, oldest)
    with stored_at(names.reviews("counts")):
        states = _states(counts)
    with stored_at(names.reviews("entered")):
        who = sorted({field.decode().rpartition("|")[0] for field in entered})
        came = [_entered(entered, one) for one in who]
    with stored_at(names.reviews("excess")):
        too_many: dict[Reason, int] = {reason.decode(): int(number) for reason, number in excess.items()}
    return Counts(
        states=states,
        entered=came,
        excess=too_many,
        oldest=min((item.at for item, _ in heads), default=None),
    )


def _states(counts: Mapping[bytes, bytes]) -> dict[State, dict[Reason, int]]:
    states: dict[State, dict[Reason, int]] = {state: {} for state in State}
    for field, number in counts.items():
        state, _, reason = field.decode().partition("|")
        if int(number):
            states[State(state)][cast(Reason, reason)] = int(number)
    return states


def _entered(stored: Mapping[bytes, bytes], own: str) -> Entered:
    reason, version, arm = own.split("|")
    return Entered(
        reason=cast(Reason, reason),
        version=version,
        arm=arm,
        items=int(stored.get(f"{own}|items".encode(), 0)),
        kept_out=int(stored.get(f"{own}|kept_out".encode(), 0)),
        weight=float(stored[f"{own}|weight".encode()]),
    )
