"""What the challenger made of rows that are in review for another reason than that the versions disagree."""

from __future__ import annotations

import msgspec

from rollout.keys import Keys
from rollout.review.item import ReviewItem, milliseconds
from rollout.review.scripts import KEEP
from rollout.store import Redis, run_script

# KEYS: the answer, those of the client and of its being forgotten, the item, and open items. ARGV: ID, time,
# seconds to keep it, JSON, rank of a disagreement. An audit keeps its place: it is a fair sample of the rest.
PUT = f"""{KEEP}
if tonumber(redis.call('GET', KEYS[3]) or 0) < tonumber(ARGV[2]) then
    redis.call('SET', KEYS[1], ARGV[4], 'EX', ARGV[3])
    keep(KEYS[2], 'other:' .. ARGV[1], tonumber(ARGV[3]))
    local item = redis.call('GET', KEYS[4])
    if item and cjson.decode(item).reason == 'low_confidence' then
        redis.call('ZADD', KEYS[5], 'XX', ARGV[5], ARGV[1])
    end
end
"""


async def keep_other(redis: Redis, item: ReviewItem, keep_s: int) -> None:
    """Keeps what the challenger made of a row, until people have decided on it: the row is for its trial, too.

    Labels of disagreements that are there first speak for those that are not. Where the model was unsure, the
    least certain come first, and the challenger is right there more or less often than elsewhere. So a row that
    is unsure and a disagreement takes the place that it would have as a disagreement, by a hash. An audit stays
    where it is: which rows are audited is random, so that the others speak for them.

    Args:
        redis: Connection.
        item: The row as it would be a disagreement, with the probability with which it would be one.
        keep_s: Seconds for which it is kept.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    names = Keys(item.model)
    client = names.client(item.client_id)
    keys = [names.other(item.id), client, f"{client}:forgotten", names.review(item.id), names.reviews("open")]
    json = msgspec.json.encode({**(item.other or {}), "pi": item.pi})
    await run_script(redis, PUT, keys, item.id, milliseconds(item.at), keep_s, json, item.rank)
