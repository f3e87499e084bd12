"""What reviewers do: claim items, decide on them, and take a decision back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Literal

import msgspec

from rollout.errors import FieldError, LeaseLostError, UnknownItemError, require_none
from rollout.heads import Head, Truth
from rollout.keys import Keys
from rollout.review import state
from rollout.review.item import ReviewItem
from rollout.review.offers import offers
from rollout.review.policy import read_policy
from rollout.review.queue import INPUT_BYTES, add_inputs, matches, read_items, read_one, read_work
from rollout.review.state import State, Taken, Work
from rollout.review.transitions import Transition, commit
from rollout.store import NOW, Redis, guard, server_time, strange_value

LEASE_S = 300.0
# Concurrent changes so many times in a row happen to no person.
MOST_TRIES = 10
SHOWN = 200  # characters of an answer in a sentence
NOTHING: Mapping[str, str] = {}

# An answer, or what reads it for the head of the item, whose matter its form is.
Said = Truth | Callable[[Head], Truth]


class Leased(msgspec.Struct, frozen=True, kw_only=True):
    """An item that a reviewer has.

    Attributes:
        item: The item.
        token: What to show when deciding.
        until: When the lease ends, ISO 8601 in UTC.
        reviews: The answers that differ, of an escalated item; otherwise nobody sees another's answer.
        why: Why it was escalated, if it was.
    """

    item: ReviewItem
    token: str
    until: str
    reviews: tuple[state.Review, ...] = ()
    why: str = ""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a reviewer gets.

    Attributes:
        items: The items.
        open: Items that nobody has, of all kinds.
        leased_by_others: Items that other reviewers have.
        escalated: Items that wait for an adjudicator.
    """

    items: list[Leased]
    open: int
    leased_by_others: int
    escalated: int


async def claim(
    redis: Redis,
    model: str,
    reviewer: str,
    count: int = 1,
    lease_s: float = LEASE_S,
    *,
    filters: Mapping[str, str] = NOTHING,
    escalated: bool = False,
) -> Claim:
    """Leases items to a reviewer: their own first, then those that lack a further review, then the most valuable.

    Args:
        redis: Connection.
        model: The model.
        reviewer: Who.
        count: How many items at most.
        lease_s: Seconds until they go to somebody else.
        filters: Fields of ``ReviewItem`` with the values wanted, and ``label``.
        escalated: Whether to take what others differed on or passed on.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    names = Keys(model)
    async with guard():
        pipe = redis.pipeline(transaction=False)
        pipe.eval(NOW, 1, names.split)
        pipe.zrange(names.reviews("leased"), 0, -1, withscores=True)
        pipe.hgetall(names.reviews("lessees"))
        time, leased, lessees = await pipe.execute()
    now = int(time) // 1000
    until = now + round(lease_s * 1000)
    await _expire(redis, model, [item_id.decode() for item_id, end in leased if end <= now], now)
    held = [item_id for item_id, end in leased if end > now and lessees.get(item_id) == reviewer.encode()]
    origin = State.ESCALATED if escalated else State.OPEN
    taken: list[Leased] = []
    own = [
        Transition(item, stored, work, state.renew(work, until), None)
        for item, stored, work in await _read(redis, model, [item_id.decode() for item_id in held])
        if work.state is State.LEASED and _origin(work) is origin and matches(item, filters)
    ]
    whole = await add_inputs(redis, model, [transition.item for transition in own[:count]])
    await _take(
        redis,
        model,
        [transition._replace(item=item) for item, transition in zip(whole, own, strict=False)],
        taken,
    )
    if len(whole) == len(own[:count]) and len(taken) < count:
        async for transitions in offers(redis, model, reviewer, origin, filters, count, until, now):
            wanted = transitions[: count - len(taken)]
            fitting = _fitting(wanted, taken)
            await _take(redis, model, fitting, taken)
            if len(taken) >= count or len(fitting) < len(wanted):
                break
    async with guard():
        pipe = redis.pipeline(transaction=False)
        for place in ("open", "again", "escalated"):
            pipe.zcard(names.reviews(place))
        pipe.hvals(names.reviews("lessees"))
        never, again, waiting, holders = await pipe.execute()
    others = sum(holder != reviewer.encode() for holder in holders)
    return Claim(items=taken, open=never + again, leased_by_others=others, escalated=waiting)


async def resolve(redis: Redis, model: str, item_id: str, token: str, truth: Truth) -> Work:
    """Takes a reviewer's answer.

    Returns:
        What became of the item: it is resolved, or open for a further review, or escalated where they differ.

    Raises:
        InvalidRequestError: If the answer does not fit the item.
        LeaseLostError: If somebody else may have the item by now; then nothing changes.
        UnknownItemError: If there is no such item.
        StoreUnavailableError: If Redis does not answer.
    """
    required = (await read_policy(redis, model)).required_reviews

    def step(head: Head, work: Work, now: int) -> Taken:
        require_truth(head, truth)
        lease = state.require_lease(work, token, now)
        return state.resolve(work, lease, truth, now, required, head.agreed)

    return await _decide(redis, model, item_id, step)


async def skip(redis: Redis, model: str, item_id: str, token: str, why: str) -> Work:
    """Decides that nobody is to answer.

    Raises:
        LeaseLostError: If somebody else may have the item by now; then nothing changes.
        UnknownItemError: If there is no such item.
        StoreUnavailableError: If Redis does not answer.
    """
    return await _set_aside(redis, model, item_id, token, "skip", why)


async def escalate(redis: Redis, model: str, item_id: str, token: str, why: str) -> Work:
    """Leaves the answer to an adjudicator.

    Raises:
        LeaseLostError: If somebody else may have the item by now; then nothing changes.
        UnknownItemError: If there is no such item.
        StoreUnavailableError: If Redis does not answer.
    """
    return await _set_aside(redis, model, item_id, token, "escalate", why)


async def release(redis: Redis, model: str, item_id: str, token: str) -> Work:
    """Gives an item back before its lease ends, to where it was.

    Raises:
        LeaseLostError: If somebody else may have the item by now; then nothing changes.
        UnknownItemError: If there is no such item.
        StoreUnavailableError: If Redis does not answer.
    """

    def step(_: Head, work: Work, now: int) -> Taken:
        state.require_lease(work, token, now)
        return state.give_back(work, "release", now)

    return await _decide(redis, model, item_id, step)


async def explain(redis: Redis, model: str, item_id: str, token: str) -> Work:
    """Notes that whoever has an item is about to see an explanation: call it first, and show nothing if it fails.

    Raises:
        LeaseLostError: If somebody else may have the item by now.
        UnknownItemError: If there is no such item.
        StoreUnavailableError: If Redis does not answer.
    """

    def step(_: Head, work: Work, now: int) -> tuple[Work, None]:
        return state.explain(work, state.require_lease(work, token, now)), None

    return await _decide(redis, model, item_id, step)


async def undo(redis: Redis, model: str, item_id: str, token: str, lease_s: float = LEASE_S) -> Leased:
    """Takes a reviewer's own last decision back, and leases the item to them again under the same token.

    Raises:
        LeaseLostError: If somebody else has had the item since; then nothing changes.
        UnknownItemError: If there is no such item.
        StoreUnavailableError: If Redis does not answer.
    """

    def step(_: Head, work: Work, now: int) -> Taken:
        return state.undo(work, token, now + round(lease_s * 1000), now)

    work = await _decide(redis, model, item_id, step)
    found = await read_one(redis, model, item_id)
    if found is None:
        raise _unknown(model, item_id)
    return _leased(found[0], work)


async def take_over(redis: Redis, model: str, item_id: str, reviewer: str, said: Said) -> bool:
    """Resolves an item by an answer that was given elsewhere.

    Args:
        redis: Connection.
        model: The model.
        item_id: The item.
        reviewer: Who gave the answer.
        said: The answer, or what reads it.

    Returns:
        Whether it was resolved by it; ``False`` where the same answer was there already.

    Raises:
        InvalidRequestError: If the answer does not fit the item.
        LeaseLostError: If the item was resolved otherwise; then nothing changes.
        UnknownItemError: If there is no such item.
        StoreUnavailableError: If Redis does not answer.
    """
    is_there = False

    def step(head: Head, work: Work, now: int) -> Taken | None:
        nonlocal is_there
        truth = said if isinstance(said, Truth) else said(head)
        require_truth(head, truth)
        is_there = work.state is State.RESOLVED
        if not is_there:
            return state.take_over(work, reviewer, truth, now)
        if head.agreed(work.truth, truth) is None:
            raise LeaseLostError(f"{item_id} was resolved as {shortly(work.truth)}: nothing was changed")
        return None

    await _decide(redis, model, item_id, step)
    return not is_there


def require_truth(head: Head, truth: Truth) -> None:
    """Refuses an answer that the head of an item does not take.

    Raises:
        InvalidRequestError: If it does not fit; with each fault and the JSON pointer to it.
    """
    require_none(FieldError(pointer, detail) for pointer, detail in head.faults(truth))


def shortly(truth: Truth) -> str:
    """Says an answer in a sentence, of a long one the beginning."""
    said = truth.in_words()
    return said if len(said) <= SHOWN else f"{said[:SHOWN]} …"


async def _set_aside(
    redis: Redis, model: str, item_id: str, token: str, did: Literal["skip", "escalate"], why: str
) -> Work:
    def step(_: Head, work: Work, now: int) -> Taken:
        lease = state.require_lease(work, token, now)
        return state.set_aside(work, lease, did, why, now)

    return await _decide(redis, model, item_id, step)


async def _decide(
    redis: Redis,
    model: str,
    item_id: str,
    step: Callable[[Head, Work, int], Taken | tuple[Work, None] | None],
    *,
    is_linked: bool = False,
) -> Work:
    for _ in range(MOST_TRIES):
        now = await server_time(redis, model) // 1000
        found = await read_one(redis, model, item_id, with_inputs=False)
        if found is None:
            raise _unknown(model, item_id)
        item, stored = found
        if item.linked_to is not None:
            if is_linked:
                raise strange_value(Keys(model).review(item_id), ValueError("an item with links is itself one"))
            return await _decide(redis, model, item.linked_to, step, is_linked=True)
        work = read_work(stored)
        taken = step(item.head, work, now)
        if taken is None:
            return work
        if (await commit(redis, model, [Transition(item, stored, work, *taken)]))[0]:
            return taken[0]
    raise LeaseLostError("this item is changed concurrently all the time: claim again")


def _unknown(model: str, item_id: str) -> UnknownItemError:
    return UnknownItemError(f"{model} has no review item {item_id!r}; its client may have been forgotten")


async def _read(redis: Redis, model: str, ids: list[str]) -> list[tuple[ReviewItem, bytes | None, Work]]:
    """Returns items without their inputs, which may be large."""
    found = await read_items(redis, model, ids)
    return [(item, stored, read_work(stored)) for item, stored in found]


def _fitting(transitions: list[Transition], taken: Sequence[Leased]) -> list[Transition]:
    """Returns the first claims whose inputs fit into ``INPUT_BYTES`` with those taken; of all, one at least."""
    together = accumulate((one.item.size for one in transitions), initial=sum(one.item.size for one in taken))
    fit = sum(size <= INPUT_BYTES for size in together) - 1
    return transitions[: max(fit, 0 if taken else 1)]


async def _take(redis: Redis, model: str, transitions: list[Transition], taken: list[Leased]) -> None:
    """Stores claims, and adds what they led to."""
    done = await commit(redis, model, transitions)
    taken += [
        _leased(transition.item, transition.after)
        for transition, one in zip(transitions, done, strict=True)
        if one
    ]


async def _expire(redis: Redis, model: str, ids: list[str], now: int) -> None:
    await commit(
        redis,
        model,
        [
            Transition(item, stored, work, *state.give_back(work, "expire", now))
            for item, stored, work in await _read(redis, model, ids)
            if work.state is State.LEASED and work.lease is not None and work.lease.until <= now
        ],
    )


def _origin(work: Work) -> State | None:
    return None if work.lease is None else work.lease.origin


def _leased(item: ReviewItem, work: Work) -> Leased:
    lease = work.lease
    assert lease is not None  # noqa: S101  that is what leased means
    leased = Leased(item=item, token=lease.token, until=state.iso(lease.until))
    if lease.origin is not State.ESCALATED:
        return leased
    return msgspec.structs.replace(leased, reviews=work.reviews, why=work.why)
