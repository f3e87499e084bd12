"""Outcomes: what callers report to have been true, joined with what had been predicted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from rollout import metrics
from rollout.errors import NO_JSON
from rollout.heads import Truth
from rollout.keys import Keys
from rollout.review.item import item_id
from rollout.review.predictions import Predicted
from rollout.review.queue import CHUNK
from rollout.review.scripts import KEEP, NEXT_CURSOR
from rollout.store import Redis, guard, report_left_out, run_script, stored_at, strange_value

RECORD_AT_MOST = 100
MOST_WAITING = 200_000

# KEYS: outcomes, then for each outcome those of itself, of its prediction, of its review item, and of its client.
# ARGV: seconds to keep, most that wait for their prediction, prefix of outcomes, then for each outcome ID and
# JSON. Returns how many went that had waited for longest, and for each outcome 1 where it is new, what is
# reported of it, and what had been predicted.
RECORD = f"""{NEXT_CURSOR}{KEEP}
local found = {{}}
local waiting = KEYS[1] .. ':waiting'
local seconds = tonumber(ARGV[1])
local oldest = (redis.call('TIME')[1] - seconds) * 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', oldest))
redis.call('ZREMRANGEBYSCORE', waiting, '-inf', string.format('%.0f', oldest))
for i = 1, (#KEYS - 1) / 4 do
    local outcome, prediction, item, client = unpack(KEYS, i * 4 - 2, i * 4 + 1)
    local id, json = unpack(ARGV, i * 2 + 2, i * 2 + 3)
    local is_new = redis.call('HSETNX', outcome, 'reported', json)
    if is_new == 1 then
        local predicted = redis.call('GET', prediction)
        local reviewed = not predicted and redis.call('GET', item)
        -- Of what is in the trial, the prediction is on its way.
        if reviewed and cjson.decode(reviewed).arm == 'champion' then
            predicted = reviewed
        end
        if predicted then
            redis.call('HSET', outcome, 'predicted', predicted)
        end
        redis.call('EXPIRE', outcome, seconds)
        local cursor = next_cursor(KEYS[1])
        redis.call('ZADD', KEYS[1], cursor, id)
        if not predicted then
            redis.call('ZADD', waiting, cursor, id)
        end
        keep(client, 'outcome:' .. id, seconds)
    end
    local stored = redis.call('HMGET', outcome, 'reported', 'predicted')
    found[i] = {{is_new, stored[1], stored[2]}}
end
local surplus = redis.call('ZCARD', waiting) - tonumber(ARGV[2])
local gone = surplus > 0 and redis.call('ZPOPMIN', waiting, surplus) or {{}}
for i = 1, #gone, 2 do
    redis.call('ZREM', KEYS[1], gone[i])
    redis.call('DEL', ARGV[3] .. gone[i])
end
return {{math.max(surplus, 0), found}}
"""

# KEYS: outcomes, then each outcome. ARGV: the ID of each.
# Returns for each its cursor, what is reported of it, and what had been predicted.
READ = """
local found = {}
for i, id in ipairs(ARGV) do
    local stored = redis.call('HMGET', KEYS[i + 1], 'reported', 'predicted')
    found[i] = {redis.call('ZSCORE', KEYS[1], id), stored[1], stored[2]}
end
return found
"""


class Outcome(Truth, frozen=True, kw_only=True, omit_defaults=True):
    """What turned out to be true of one prediction, beside which one.

    Attributes:
        client_id: The caller's own ID of the client.
        key: The caller's own ID of the prediction.
        at: When it was reported, ISO 8601 in UTC.
        numbers: Whatever else the team counts, by name.
        cursor: Microseconds since 1970 of its last change, growing within a model: reported, or joined later.
        predicted: What had been predicted; ``None`` while that is not known.
    """

    client_id: str
    key: str
    at: str
    numbers: dict[str, float] = msgspec.field(default_factory=dict)
    cursor: int = 0
    predicted: Predicted | None = None

    @property
    def id(self) -> str:
        """The ID that its prediction and its review item have, too."""
        return item_id(self.client_id, self.key, b"")


class Recorded(NamedTuple):
    """What became of a report.

    Attributes:
        outcome: The outcome that counts: the first that was reported.
        fate: Whether it is ``new``, ``repeated``, or ``contradicted`` by this report, which changed nothing.
    """

    outcome: Outcome
    fate: Literal["new", "repeated", "contradicted"]


async def record_outcomes(
    redis: Redis, model: str, outcomes: Sequence[Outcome], keep_s: int, most_waiting: int = MOST_WAITING
) -> list[Recorded]:
    """Keeps outcomes, and joins each with its prediction in the trial, or outside it with its review item.

    The first outcome of a client and key counts.

    Args:
        redis: Connection.
        model: The model.
        outcomes: What was reported.
        keep_s: Seconds that they are kept.
        most_waiting: How many may wait for their prediction; of more, those go that have waited for longest.

    Returns:
        What became of each, in order.

    Raises:
        StoreUnavailableError: If Redis does not answer; some may be kept, and reporting them again is safe.
    """
    names = Keys(model)
    recorded = []
    for start in range(0, len(outcomes), RECORD_AT_MOST):
        keys = [names.outcomes]
        arguments: list[str | bytes | int] = [keep_s, most_waiting, names.outcome("")]
        group = outcomes[start : start + RECORD_AT_MOST]
        for one in group:
            keys += [names.outcome(one.id), names.prediction(one.id), names.review(one.id)]
            keys.append(names.client(one.client_id))
            arguments += [one.id, msgspec.json.encode(one)]
        gone, found = await run_script(redis, RECORD, keys, *arguments)
        if gone:
            metrics.OUTCOMES.labels(model, "dropped").inc(gone)
        for one, (is_new, reported, predicted) in zip(group, found, strict=True):
            first = _outcome(reported, predicted)
            fate: Literal["new", "repeated", "contradicted"] = "new" if is_new else "repeated"
            if (first.truth, first.numbers) != (one.truth, one.numbers):
                fate = "contradicted"
            recorded.append(Recorded(first, fate))
    return recorded


async def read_outcomes(redis: Redis, model: str, ids: Sequence[str]) -> list[Outcome | None]:
    """Returns the outcomes with these IDs, in order; ``None`` where there is none.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    if not ids:
        return []
    names = Keys(model)
    async with guard():
        keys = [names.outcomes, *(names.outcome(one) for one in ids)]
        found = await redis.eval(READ, len(keys), *keys, *ids)
    outcomes: list[Outcome | None] = []
    for one, (cursor, reported, predicted) in zip(ids, found, strict=True):
        try:
            known = None if reported is None else _outcome(reported, predicted, int(float(cursor or 0)))
        except NO_JSON as error:
            report_left_out(strange_value(names.outcome(one), error))
            known = None
        outcomes.append(known)
    return outcomes


async def read_outcomes_since(redis: Redis, model: str, since: int = 0) -> AsyncIterator[Outcome]:
    """Yields outcomes in the order in which they changed: one that is joined later is given again then.

    Args:
        redis: Connection.
        model: The model.
        since: Cursor of the last outcome seen, or microseconds since 1970; later ones are given.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    while True:
        async with guard():
            found: list[Any] = await redis.zrangebyscore(
                Keys(model).outcomes, f"({since}", "+inf", 0, CHUNK, withscores=True
            )
        if not found:
            return
        with stored_at(Keys(model).outcomes):
            ids, last = [one.decode() for one, _ in found], int(found[-1][1])
        for outcome in await read_outcomes(redis, model, ids):
            if outcome is not None:
                yield outcome
        since = last


def _outcome(reported: bytes, predicted: bytes | None, cursor: int = 0) -> Outcome:
    return msgspec.structs.replace(
        msgspec.json.decode(reported, type=Outcome),
        cursor=cursor,
        predicted=None if predicted is None else msgspec.json.decode(predicted, type=Predicted),
    )
