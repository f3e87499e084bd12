"""Storing the transitions of review items: all or nothing, unless a concurrent one came first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from rollout.keys import Keys
from rollout.review.item import ReviewItem, milliseconds
from rollout.review.queue import PLACES
from rollout.review.scripts import NEXT_CURSOR
from rollout.review.state import Event, State, Work
from rollout.store import Redis, run_script

# KEYS: changes, counts, lessees, then for each step the work and the events of its item, and the places that it
# leaves and enters. ARGV: prefix of the answered sets, then for each step ID, work expected, work to be, event,
# score in the new place, fields of the counts before and after, lessee, 1 if a label came or went, and JSON lists
# of those whose answers the item carries out of the place that it leaves and into the one that it enters.
# Returns for each step 1, or 0 where the work was another already.
COMMIT = f"""{NEXT_CURSOR}
local taken = {{}}
local prefix = ARGV[1]
for i = 1, (#KEYS - 3) / 4 do
    local work, events, left, entered = unpack(KEYS, i * 4, i * 4 + 3)
    local id, expected, new, event, score, before, after, lessee, changed, out, into =
        unpack(ARGV, i * 11 - 9, i * 11 + 1)
    taken[i] = 0
    if (redis.call('GET', work) or '') == expected and redis.call('ZSCORE', left, id) then
        redis.call('SET', work, new)
        redis.call('ZREM', left, id)
        redis.call('ZADD', entered, score, id)
        redis.call('HINCRBY', KEYS[2], before, -1)
        redis.call('HINCRBY', KEYS[2], after, 1)
        if event ~= '' then
            redis.call('RPUSH', events, event)
        end
        if lessee ~= '' then
            redis.call('HSET', KEYS[3], id, lessee)
        else
            redis.call('HDEL', KEYS[3], id)
        end
        if changed == '1' then
            redis.call('ZADD', KEYS[1], next_cursor(KEYS[1]), id)
        end
        for _, reviewer in ipairs(cjson.decode(out)) do
            redis.call('SREM', prefix .. reviewer, id)
        end
        for _, reviewer in ipairs(cjson.decode(into)) do
            redis.call('SADD', prefix .. reviewer, id)
        end
        taken[i] = 1
    end
end
return taken
"""


class Transition(NamedTuple):
    """A step of one item that is to be stored.

    Attributes:
        item: The item.
        stored: Its work as it was read.
        before: The same, decoded.
        after: Its work as it is to be.
        event: What is noted of it; ``None`` where a lease is only renewed.
    """

    item: ReviewItem
    stored: bytes | None
    before: Work
    after: Work
    event: Event | None


async def commit(redis: Redis, model: str, transitions: Sequence[Transition]) -> list[bool]:
    """Stores transitions.

    Returns:
        For each step whether it was stored; ``False`` means that somebody else was faster.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    if not transitions:
        return []
    names = Keys(model)
    keys = [names.reviews(name) for name in ("changes", "counts", "lessees")]
    arguments: list[str | bytes | float] = [names.answered("")]
    for item, stored, before, after, event in transitions:
        left, _ = _place(item, before)
        entered, score = _place(item, after)
        keys += [names.review(item.id, ":work"), names.review(item.id, ":events")]
        keys += [names.reviews(left), names.reviews(entered)]
        arguments += [
            item.id,
            stored or b"",
            msgspec.json.encode(after),
            b"" if event is None else msgspec.json.encode(event),
            score,
            f"{before.state}|{item.reason}",
            f"{after.state}|{item.reason}",
            after.lease.reviewer if after.state is State.LEASED and after.lease is not None else "",
            int(State.RESOLVED in (before.state, after.state)),
            msgspec.json.encode(_answered_by(before)),
            msgspec.json.encode(_answered_by(after)),
        ]
    taken = await run_script(redis, COMMIT, keys, *arguments)
    return [bool(one) for one in taken]


def _place(item: ReviewItem, work: Work) -> tuple[str, float]:
    """Returns the sorted set where an item lies, and its score there."""
    if work.state is State.OPEN:
        again, first = PLACES[State.OPEN]
        return again if work.reviews else first, item.rank
    (place,) = PLACES[work.state]
    if work.state is State.LEASED:
        assert work.lease is not None  # noqa: S101  that is what leased means
        return place, work.lease.until
    if work.state is State.ESCALATED:
        return place, item.rank
    return place, milliseconds(work.decided_at or item.at)


def _answered_by(work: Work) -> list[str]:
    """Returns the reviewers to whom an item is not offered where it lies."""
    return [review.reviewer for review in work.reviews] if work.state in (State.OPEN, State.ESCALATED) else []
