"""What several Lua scripts do alike: cursors that grow, what is kept of a client, and the join."""

from __future__ import annotations

# next_cursor(changes) gives microseconds since 1970, and more than anything in the sorted set has.
NEXT_CURSOR = """
local function next_cursor(changes)
    local now = redis.call('TIME')
    local last = redis.call('ZRANGE', changes, -1, -1, 'WITHSCORES')[2] or 0
    return string.format('%.0f', math.max(tonumber(last) + 1, now[1] * 1000000 + now[2]))
end
"""

# keep(client, part, seconds) notes that something is kept of a client, for ever where it does not say how long.
KEEP = """
local function keep(client, part, seconds)
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
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

# join(outcomes, outcome, id, predicted) gives an outcome that came first what had been predicted, once.
JOIN = f"""{NEXT_CURSOR}
local function join(outcomes, outcome, id, predicted)
    if redis.call('EXISTS', outcome) == 1 and redis.call('HSETNX', outcome, 'predicted', predicted) == 1 then
        redis.call('ZADD', outcomes, next_cursor(outcomes), id)
    end
end
"""
