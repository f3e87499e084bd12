"""Forgetting a client: everything that is kept of it goes, and what is still on its way stays out."""

from __future__ import annotations

import msgspec

from rollout.keys import Keys
from rollout.review.queue import PLACES
from rollout.review.scripts import WEIGH
from rollout.store import Redis, run_script

FORGET_AT_MOST = 200

# KEYS: those of the client and of its being forgotten, outcomes, changes, counts, lessees, then the places of
# items. ARGV: prefix of all keys, seconds to remember it, most parts to forget, then the state of each place.
# Returns how many items, outcomes and predictions are gone, and how many parts are left.
FORGET = f"""{WEIGH}
-- What cannot be read goes as well.
local function read(json)
    local is_json, found = pcall(cjson.decode, json or '{{}}')
    return is_json and type(found) == 'table' and found or {{}}
end
local prefix, seconds, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = redis.call('TIME')
redis.call('SET', KEYS[2], string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)), 'EX', seconds)
local gone = {{review = 0, outcome = 0, prediction = 0, other = 0}}
for _, part in ipairs(redis.call('ZRANGE', KEYS[1], 0, most - 1)) do
    local kind, id = string.match(part, '^(%a+):(%x+)$')
    local key = prefix .. part
    local json = kind == 'review' and redis.call('GET', key)
    if json then
        local item = read(json)
        for i = 7, #KEYS do
            if redis.call('ZREM', KEYS[i], id) == 1 and type(item.reason) == 'string' then
                redis.call('HINCRBY', KEYS[5], ARGV[i - 3] .. '|' .. item.reason, -1)
            end
        end
        redis.call('ZREM', KEYS[4], id)
        redis.call('HDEL', prefix .. 'disagreements', id)
        redis.call('HDEL', prefix .. 'reviewed', id)
        redis.call('HDEL', KEYS[6], id)
        local size = redis.call('STRLEN', key) + redis.call('STRLEN', key .. ':inputs')
        local whose = string.match(KEYS[1], '[^:]+$')
        lighten(prefix .. 'reviews:bytes', prefix .. 'reviews:weights', size .. ':' .. whose .. ':' .. id)
        local reviews = read(redis.call('GET', key .. ':work')).reviews
        for _, review in ipairs(type(reviews) == 'table' and reviews or {{}}) do
            if type(review) == 'table' and type(review.reviewer) == 'string' then
                redis.call('SREM', prefix .. 'reviews:answered:' .. review.reviewer, id)
            end
        end
        redis.call('DEL', key .. ':inputs', key .. ':work', key .. ':events', key .. ':links')
        if type(item.same) == 'string' then
            redis.call('DEL', prefix .. 'same:' .. item.same)
        end
    elseif kind == 'outcome' then
        redis.call('ZREM', KEYS[3], id)
        redis.call('ZREM', KEYS[3] .. ':waiting', id)
    end
    gone[kind] = gone[kind] + redis.call('DEL', key)
    redis.call('ZREM', KEYS[1], part)
end
return {{gone.review, gone.outcome, gone.prediction, redis.call('ZCARD', KEYS[1])}}
"""


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What was forgotten of a client.

    Attributes:
        reviews: Review items.
        outcomes: Outcomes.
        predictions: Predictions that waited for their outcomes.
    """

    reviews: int
    outcomes: int
    predictions: int


async def forget_client(redis: Redis, model: str, client_id: str, remember_s: int) -> Forgotten:
    """Removes everything that is kept of a client.

    What was predicted before and is still on its way, on a spool or in a worker, is dropped when it arrives.

    Args:
        redis: Connection.
        model: The model.
        client_id: The caller's own ID of the client.
        remember_s: Seconds for which what is on its way may arrive.

    Raises:
        StoreUnavailableError: If Redis does not answer; some may be forgotten, and doing it again is safe.
    """
    names = Keys(model)
    client = names.client(client_id)
    places = {place: state for state, each in PLACES.items() for place in each}
    keys = [client, f"{client}:forgotten", names.outcomes]
    keys += [names.reviews(name) for name in ("changes", "counts", "lessees", *places)]
    reviews = outcomes = predictions = 0
    left = 1
    while left:
        *gone, left = await run_script(
            redis, FORGET, keys, names.prefix, remember_s, FORGET_AT_MOST, *places.values()
        )
        reviews, outcomes, predictions = reviews + gone[0], outcomes + gone[1], predictions + gone[2]
    return Forgotten(reviews=reviews, outcomes=outcomes, predictions=predictions)
