-- Sends the HTTP requests of a file in turn. A line with its length in bytes precedes each.
-- Where a request holds KEY, a new key takes its place: a key that came before would be no new review item.
local KEY = "key-0000000000"
local heads, tails, turn, sent = {}, {}, 0, 0

function init(args)
    local file = assert(io.open(args[1], "rb"))
    sent = tonumber(args[2])
    for length in file:lines() do
        local request = file:read(tonumber(length))
        local first, last = request:find(KEY, 1, true)
        heads[#heads + 1] = first and request:sub(1, first - 1) or request
        tails[#heads] = first and request:sub(last + 1)
    end
end

function request()
    turn = turn % #heads + 1
    if not tails[turn] then return heads[turn] end
    sent = sent + 1
    return heads[turn] .. string.format("key-%010d", sent) .. tails[turn]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format('{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failures": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
