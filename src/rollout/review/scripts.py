"""What several Lua scripts do alike: cursors that grow, what is kept of a client and what it weighs, the join."""

from __future__ import annotations

# next_cursor(changes) gives microseconds since 1970, and more than anything in the sorted set has.
NEXT_CURSOR = """
local function next_cursor(changes)
    local now = redis.call('TIME')
    local last = redis.call('ZRANGE', changes, -1, -1, 'WITHSCORES')[2] or 0
    return string.format('%.0f', math.max(tonumber(last) + 1, now[1] * 1000000 + now[2]))
end
"""

# now is in milliseconds since 1970. keep(client, part, seconds) notes that something is kept of a client, for
# ever where it does not say how long.
KEEP = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function keep(client, part, seconds)
    redis.call('ZREMRANGEBYSCORE', client, '-inf', now)
    redis.call('ZADD', client, seconds and now + seconds * 1000 or '+inf', part)
    local last = redis.call('ZRANGE', client, -1, -1, 'WITHSCORES')[2]
    if last == 'inf' then
        redis.call('PERSIST', client)
    else
        redis.call('PEXPIREAT', client, last)
    end
end
"""

# Items weigh until their inputs expire. bytes: a hash of all bytes, and of those of each client; weights: sorted,
# SIZE:CLIENT:ID by when they expire. weigh() adds one, lighten() takes one away, lighten_expired() those
# that have expired.
WEIGH = """
local function lighten(bytes, weights, member)
    if redis.call('ZREM', weights, member) == 1 then
        local size, client = string.match(member, '^(%d+):(%x+):')
        for _, whose in ipairs({'all', client}) do
            if redis.call('HINCRBY', bytes, whose, -size) <= 0 then
                redis.call('HDEL', bytes, whose)
            end
        end
    end
end
local function lighten_expired(bytes, weights, now)
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', weights, '-inf', now, 'LIMIT', 0, 1000)) do
        lighten(bytes, weights, member)
    end
end
local function weigh(bytes, weights, size, client, id, expires)
    redis.call('ZADD', weights, expires, size .. ':' .. client .. ':' .. id)
    redis.call('HINCRBY', bytes, 'all', size)
    redis.call('HINCRBY', bytes, client, size)
end
"""

# join(outcomes, outcome, id, predicted) gives an outcome that came first what had been predicted, once.
JOIN = f"""{NEXT_CURSOR}
local function join(outcomes, outcome, id, predicted)
    if redis.call('EXISTS', outcome) == 1 and redis.call('HSETNX', outcome, 'predicted', predicted) == 1 then
        redis.call('ZADD', outcomes, next_cursor(outcomes), id)
        redis.call('ZREM', outcomes .. ':waiting', id)
    end
end
"""
