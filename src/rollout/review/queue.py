"""The queue in Redis: adding items once, and reading them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from rollout.errors import StoredValueError
from rollout.keys import Keys
from rollout.review.item import GONE, ITEM_ID, ReviewItem, milliseconds
from rollout.review.policy import DEFAULT, ReviewPolicy
from rollout.review.scripts import JOIN, KEEP, WEIGH
from rollout.review.state import State, Work
from rollout.store import Redis, decode_stored, guard, report_left_out, run_script, stored_at

CHUNK = 200
# Of inputs, which callers make as large as a body, so many bytes are in memory at once, or those of one item.
INPUT_BYTES = 32 * 1024 * 1024
# Predictions that are linked to one item, whoever looks at which reads all of them.
MOST_LINKS = 1000
# Where the items of a state lie, each a sorted set; open ones that lack a further review lie apart.
PLACES: Mapping[State, tuple[str, ...]] = {
    State.OPEN: ("again", "open"),
    State.LEASED: ("leased",),
    State.RESOLVED: ("resolved",),
    State.SKIPPED: ("skipped",),
    State.ESCALATED: ("escalated",),
}
NO_POLICIES: Mapping[str, ReviewPolicy] = {}
FOREVER = 2**53

# KEYS: open, again, leased, counts, entered, excess, changes, outcomes, bytes, weights, then for each item those
# of itself, of its inputs, of what has the same inputs, of its client, of its client's being forgotten, and of
# its outcome. ARGV: limit, prefix of items, seconds to keep inputs, most bytes of items, and of a client's, then
# for each item ID, rank, reason, version and arm, weight, limit of the reason, time, JSON, inputs.
# Returns for each item 1 where the queue has it now, 0 where the queue is full.
ADD = f"""{JOIN}{KEEP}{WEIGH}
local kept = {{}}
local limit, prefix, ttl = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local function has_bytes(whose, more, most)
    return tonumber(redis.call('HGET', KEYS[9], whose) or 0) + more <= tonumber(most)
end
lighten_expired(KEYS[9], KEYS[10], now)
for i = 1, (#KEYS - 10) / 6 do
    local item, inputs, same, client, forgotten, outcome = unpack(KEYS, 5 + i * 6, 10 + i * 6)
    local id, rank, reason, group, weight, most, at, json, sent = unpack(ARGV, i * 9 - 3, i * 9 + 5)
    local whose = string.match(client, '[^:]+$')
    local first = redis.call('GET', same)
    local is_new = redis.call('EXISTS', item) == 0
        and tonumber(redis.call('GET', forgotten) or 0) < tonumber(at)
    local is_link = first and redis.call('EXISTS', prefix .. first) == 1
    -- JSON ends with "linked_to":null}}
    local link = is_link and string.sub(json, 1, -6) .. '"' .. first .. '"}}'
    -- Of what is linked no inputs are kept.
    local size = link and #link or #json + #sent
    local has_room = has_bytes('all', size, ARGV[4]) and has_bytes(whose, size, ARGV[5])
    if is_link then
        has_room = has_room and redis.call('SCARD', prefix .. first .. ':links') < {MOST_LINKS}
    else
        has_room = has_room
            and redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[2]) + redis.call('ZCARD', KEYS[3]) < limit
            and tonumber(redis.call('HGET', KEYS[4], 'open|' .. reason) or 0)
                + tonumber(redis.call('HGET', KEYS[4], 'leased|' .. reason) or 0) < tonumber(most)
    end
    kept[i] = 1
    if is_new and has_room then
        weigh(KEYS[9], KEYS[10], size, whose, id, now + ttl * 1000)
    end
    if is_new and has_room and is_link then
        redis.call('SET', item, link)
        redis.call('SADD', prefix .. first .. ':links', id)
        if redis.call('ZSCORE', KEYS[7], first) then
            redis.call('ZADD', KEYS[7], next_cursor(KEYS[7]), first)
        end
    elseif is_new and has_room then
        redis.call('SET', item, json)
        redis.call('SET', inputs, sent, 'EX', ttl)
        redis.call('SET', same, id, 'EX', ttl)
        redis.call('ZADD', KEYS[1], rank, id)
        redis.call('HINCRBY', KEYS[4], 'open|' .. reason, 1)
    elseif is_new then
        -- Those that are kept speak for it, too.
        redis.call('HINCRBY', KEYS[5], group .. '|kept_out', 1)
        redis.call('HINCRBYFLOAT', KEYS[5], group .. '|weight', weight)
        redis.call('HINCRBY', KEYS[6], reason, 1)
        kept[i] = 0
        is_new = false
    end
    if is_new then
        redis.call('HINCRBY', KEYS[5], group .. '|items', 1)
        redis.call('HINCRBYFLOAT', KEYS[5], group .. '|weight', weight)
        keep(client, 'review:' .. id)
        -- Predictions in the trial are joined with their outcomes by themselves.
        if string.sub(group, -9) == '|champion' then
            join(KEYS[8], outcome, id, json)
        end
    end
end
return kept
"""


class Budget(NamedTuple):
    """Bytes that items may have with their inputs, as long as these are kept.

    Attributes:
        model: Those of a model.
        client: Those of one of its clients.
    """

    model: int
    client: int


async def add_items(
    redis: Redis,
    items: Sequence[ReviewItem],
    limit: int,
    policies: Mapping[str, ReviewPolicy] = NO_POLICIES,
    budget: Budget | None = None,
) -> list[bool]:
    """Adds items that the queue does not have yet.

    Args:
        redis: Connection.
        items: Items of one or several models.
        limit: Most open items of a model.
        policies: How they are kept, by model.
        budget: What they may weigh.

    Returns:
        For each item, in order, whether the queue has it now; ``False`` means that the queue is full.

    Raises:
        StoreUnavailableError: If Redis does not answer; some items may have been added.
    """
    kept: dict[tuple[str, str], bool] = {}
    for model, group in groupby(sorted(items, key=attrgetter("model")), key=attrgetter("model")):
        chunk = list(group)
        names, policy = Keys(model), policies.get(model, DEFAULT)
        shared = ("open", "again", "leased", "counts", "entered", "excess", "changes")
        most = budget or Budget(FOREVER, FOREVER)
        keys = [*(names.reviews(place) for place in shared), names.outcomes]
        keys += [names.reviews("bytes"), names.reviews("weights")]
        arguments: list[Any] = [limit, names.review(""), policy.retention_s, *most]
        for item in chunk:
            client = names.client(item.client_id)
            same = names.same_inputs(item.same)
            keys += [
                names.review(item.id),
                names.review(item.id, ":inputs"),
                same,
                client,
                f"{client}:forgotten",
                names.outcome(item.id),
            ]
            arguments += [
                item.id,
                item.rank,
                item.reason,
                f"{item.reason}|{item.version}|{item.arm}",
                1 / item.pi,
                policy.limits.get(item.reason, FOREVER),
                milliseconds(item.at),
                msgspec.json.encode(msgspec.structs.replace(item, inputs=GONE)),
                bytes(item.inputs),
            ]
        answers = await run_script(redis, ADD, keys, *arguments)
        kept.update(((model, item.id), bool(answer)) for item, answer in zip(chunk, answers, strict=True))
    return [kept[item.model, item.id] for item in items]


async def read_items(redis: Redis, model: str, ids: Sequence[str]) -> list[tuple[ReviewItem, bytes | None]]:
    """Returns items without their inputs, and their work as it is stored; what is not there is left out.

    IDs may come from anybody: what is none could be the end of another key's name.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    items = []
    for start in range(0, len(ids), CHUNK):  # of many, neither Redis nor the event loop is held up
        for item_id, data, work, other in await _stored(redis, model, ids[start : start + CHUNK]):
            try:
                items.append(_item(model, item_id, data, work, other))
            except StoredValueError as error:
                report_left_out(error)
    return items


async def read_one(
    redis: Redis, model: str, item_id: str, *, with_inputs: bool = True
) -> tuple[ReviewItem, bytes | None] | None:
    """Returns one item as ``read_items`` does, or ``None`` if there is none.

    Raises:
        StoredValueError: If it, or what became of it, is not what Rollout writes there.
        StoreUnavailableError: If Redis does not answer.
    """
    for stored in await _stored(redis, model, [item_id]):
        item, work = _item(model, *stored)
        return ((await add_inputs(redis, model, [item]))[0] if with_inputs else item), work
    return None


async def _stored(
    redis: Redis, model: str, ids: Sequence[str]
) -> list[tuple[str, bytes, bytes | None, bytes | None]]:
    """Returns what is stored of the items that are there: ID, item, work, and what the challenger made of it."""
    ids = [one for one in ids if ITEM_ID.fullmatch(one)]
    if not ids:
        return []
    names = Keys(model)
    async with guard():
        keys = [names.review(one, part) for part in ("", ":work") for one in ids]
        found: list[Any] = await redis.mget([*keys, *(names.other(one) for one in ids)])
    parts = (found[start : start + len(ids)] for start in range(0, len(found), len(ids)))
    return [stored for stored in zip(ids, *parts, strict=True) if stored[1] is not None]


def _item(
    model: str, item_id: str, data: bytes, work: bytes | None, other: bytes | None
) -> tuple[ReviewItem, bytes | None]:
    """Returns an item with what the challenger made of it, where that came later, and its work.

    Raises:
        StoredValueError: If one of them is not what was stored there.
    """
    names = Keys(model)
    key = names.review(item_id)
    item = decode_stored(data, ReviewItem, key)
    with stored_at(key):
        item.check(model, item_id)
    if work is not None:
        decode_stored(work, Work, names.review(item_id, ":work"))
    if other is not None:
        unseen = decode_stored(other, dict[str, Any], names.other(item_id))
        item = msgspec.structs.replace(item, other=unseen)
        with stored_at(names.other(item_id)):
            item.check_other()
    return item, work


async def add_inputs(redis: Redis, model: str, items: Sequence[ReviewItem]) -> list[ReviewItem]:
    """Returns items with their inputs, as far as they are still kept: the first that fit into ``INPUT_BYTES``.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    keys = [Keys(model).review(item.id, ":inputs") for item in items]
    async with guard():
        pipe = redis.pipeline(transaction=False)
        for key in keys:
            pipe.strlen(key)
        fit = sum(together <= INPUT_BYTES for together in accumulate(await pipe.execute()))
        pipe = redis.pipeline(transaction=False)  # each answer has its time: inputs may be large
        for key in keys[: max(fit, 1)]:
            pipe.get(key)
        found = await pipe.execute()
    return [
        item if inputs is None else msgspec.structs.replace(item, inputs=msgspec.Raw(inputs))
        for item, inputs in zip(items, found, strict=False)
    ]


async def with_inputs(redis: Redis, model: str, items: Sequence[ReviewItem]) -> AsyncIterator[ReviewItem]:
    """Yields items with their inputs, as far as they are still kept, of which few are in memory at once.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    rest = list(items)
    while rest:
        whole = await add_inputs(redis, model, rest)
        del rest[: len(whole)]
        for item in whole:
            yield item


def share(item: ReviewItem) -> int:
    """How much of a group of ``CHUNK`` an item is, whose inputs have ``INPUT_BYTES`` together."""
    return 1 + CHUNK * item.size // INPUT_BYTES


async def read_item(redis: Redis, model: str, item_id: str) -> tuple[ReviewItem, Work] | None:
    """Returns an item and what became of it, or ``None`` if there is none.

    Raises:
        StoredValueError: If one of both is not what Rollout writes there.
        StoreUnavailableError: If Redis does not answer.
    """
    found = await read_one(redis, model, item_id)
    return None if found is None else (found[0], read_work(found[1]))


async def read_links(redis: Redis, model: str, item_id: str) -> list[ReviewItem]:
    """Returns the predictions that have the same inputs as an item under other keys.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        links: set[bytes] = await redis.smembers(Keys(model).review(item_id, ":links"))  # type: ignore[assignment]
    ids = sorted(link.decode() for link in links)
    return [link for link, _ in await read_items(redis, model, ids)]


def read_work(stored: bytes | None) -> Work:
    """Decodes the work of an item; nobody has touched it yet where there is none."""
    return Work() if stored is None else msgspec.json.decode(stored, type=Work)


async def list_items(
    redis: Redis, model: str, filters: Mapping[str, str], since: str | None = None, state: State = State.OPEN
) -> AsyncIterator[tuple[ReviewItem, Work]]:
    """Yields the items of a model in one state, open ones in the order in which they are claimed.

    Args:
        redis: Connection.
        model: The model.
        filters: Fields of ``ReviewItem`` with the values wanted, and ``label``.
        since: Earliest time of the prediction, ISO 8601; all where it is ``None``.
        state: The state.

    Raises:
        StoreUnavailableError: If Redis does not answer.
        ValueError: If ``since`` is not a time.
    """
    earliest = 0 if since is None else milliseconds(since)
    for place in PLACES[state]:
        offset = 0
        while True:
            async with guard():
                ids: list[Any] = await redis.zrange(Keys(model).reviews(place), offset, offset + CHUNK - 1)
            if not ids:
                break
            found = [
                (item, work)
                for item, work in await read_items(redis, model, [one.decode() for one in ids])
                if milliseconds(item.at) >= earliest and matches(item, filters)
            ]
            works = iter([work for _, work in found])
            async for item in with_inputs(redis, model, [item for item, _ in found]):
                yield item, read_work(next(works))
            offset += len(ids)


def matches(item: ReviewItem, filters: Mapping[str, str], *, blind: bool = True) -> bool:
    """Whether the fields of an item have the values wanted; ``label`` is one of those in its answer.

    Args:
        item: The item.
        filters: Fields of ``ReviewItem`` with the values wanted, and ``label``.
        blind: Whether nobody may find out by filters which of two versions said what: then ``label`` is one of
            those in either answer, and what is for a trial has the reason ``disagreement``.
    """
    answers = item.said if blind else [item.answer]

    def value_of(field: str) -> object:
        return item.reason_shown if blind and field == "reason" else getattr(item, field)

    return all(
        any(value in item.head.labels_of(answer) for answer in answers)
        if field == "label"
        else value_of(field) == value
        for field, value in filters.items()
    )
