"""Which items a reviewer may have, in order: none that they have answered."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping

from rollout.keys import Keys
from rollout.review import state
from rollout.review.queue import CHUNK, PLACES, add_inputs, matches, read_items, read_work
from rollout.review.state import State
from rollout.review.transitions import Transition, commit
from rollout.store import Redis, guard

# So many more than wanted are looked at, should others take some at the same time.
SPARE = 10

# KEYS: a place of items, and what the reviewer has answered. ARGV: offset in the place, most items wanted.
# Returns the offset after the last item looked at, then items that the reviewer has not answered.
UNANSWERED = """
local offset, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = {0}
repeat
    local ids = redis.call('ZRANGE', KEYS[1], offset, offset + 999)
    local answered = #ids > 0 and redis.call('SMISMEMBER', KEYS[2], unpack(ids)) or {}
    for i, id in ipairs(ids) do
        if #found <= most then
            offset = offset + 1
            if answered[i] == 0 then
                found[#found + 1] = id
            end
        end
    end
until #ids == 0 or #found > most
found[1] = offset
return found
"""


async def offers(
    redis: Redis,
    model: str,
    reviewer: str,
    origin: State,
    filters: Mapping[str, str],
    count: int,
    until: int,
    now: int,
) -> AsyncIterator[list[Transition]]:
    """Yields claims of items that a reviewer may have, in order; those whose inputs are gone are retired.

    Args:
        redis: Connection.
        model: The model.
        reviewer: Who.
        origin: ``OPEN`` or ``ESCALATED``.
        filters: Fields of ``ReviewItem`` with the values wanted, and ``label``.
        count: How many are wanted; more may come.
        until: When the leases end, milliseconds since 1970.
        now: Milliseconds since 1970.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    names = Keys(model)
    for place in PLACES[origin]:
        offset, size = 0, count + SPARE
        while True:
            async with guard():
                offset, *ids = await redis.eval(
                    UNANSWERED, 2, names.reviews(place), names.answered(reviewer), offset, size
                )
            if not ids:
                break
            read = await read_items(redis, model, [item_id.decode() for item_id in ids])
            found = [
                (item, stored, work)
                for item, stored, work in ((item, stored, read_work(stored)) for item, stored in read)
                # What is in another state was claimed concurrently.
                if work.state is origin and not work.was_reviewed_by(reviewer) and matches(item, filters)
            ]
            while found:
                whole = await add_inputs(redis, model, [item for item, _, _ in found[: count + SPARE]])
                group, found = found[: len(whole)], found[len(whole) :]
                retired, claims = [], []
                for item, (_, stored, work) in zip(whole, group, strict=True):
                    if not item.has_inputs:
                        retired.append(Transition(item, stored, work, *state.retire(work, now)))
                    else:
                        token = secrets.token_urlsafe(12)
                        claims.append(
                            Transition(item, stored, work, *state.claim(work, reviewer, token, until, now))
                        )
                # Those that left the place move the others up: a few may be seen twice, which `commit` refuses.
                offset -= sum(await commit(redis, model, retired)) + len(claims)
                yield claims
            size = CHUNK
