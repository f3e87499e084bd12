"""Forgetting a client leaves nothing of it, anywhere, and nothing comes back."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtests.fleet import Valkey
from rollout.errors import UnknownItemError
from rollout.heads import Truth
from rollout.keys import Keys
from rollout.review import actions, state
from rollout.review import forget as forget_module
from rollout.review.access_log import read_access, record_access
from rollout.review.counts import read_counts
from rollout.review.export import export_rows
from rollout.review.forget import Forgotten, forget_client
from rollout.review.item import ReviewItem, item_id, same_inputs
from rollout.review.log import ReviewLog
from rollout.review.outcomes import Outcome, read_outcomes_since, record_outcomes
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.review.predictions import PendingOutcome, Predicted, Predictions, record_predictions
from rollout.review.queue import add_items
from rollout.review.sampling import Sampler
from rollout.review.spool import Spool
from rollout.review.state import State
from rollout.store import Redis, connect
from tests.review.items import make_item

DAY_S = 24 * 3600
CLIENT, KEY, MARKER = "zoë-4711", "order-0815", "SECRET-MARKER"
NAMES = Keys("digits")


def now() -> str:
    return state.iso(round(datetime.datetime.now(datetime.UTC).timestamp() * 1000))


def item_of(client_id: str, key: str, inputs: str = "", **changes: Any) -> ReviewItem:
    sent = msgspec.json.encode({"text": f"{MARKER} of {client_id} {inputs or key}"})
    return make_item(
        1,
        id=item_id(client_id, key, sent),
        client_id=client_id,
        key=key,
        same=same_inputs(client_id, sent),
        inputs=msgspec.Raw(sent),
        at=now(),
        **changes,
    )


def waiting(client_id: str, key: str, at: str = "") -> PendingOutcome:
    answer = {"label": "3", "confidence": 0.9, "scores": {}}
    predicted = Predicted(at=at or now(), arm="control", version="v1", variant="onnx", revision=1, answer=answer)
    return PendingOutcome(client_id, key, predicted)


def report(client_id: str, key: str) -> Outcome:
    return Outcome(client_id=client_id, key=key, at=now(), label="3")


async def fill(redis: Redis, client_id: str, prefix: str) -> None:
    """Keeps all that there is of a client: items in every state, a link, predictions, outcomes."""
    keys = [f"{prefix}-{number}" for number in range(6)]
    items = [item_of(client_id, key, arm="champion") for key in keys]
    await add_items(redis, items, 100)
    for place in ("resolved", "again", "skipped", "escalated", "leased"):
        claimed = await actions.claim(redis, "digits", f"Ana-{place}", filters={"client_id": client_id})
        await record_access(redis, "digits", "Ana", "reviewer", "claim", [one.item.id for one in claimed.items])
        ((one, token),) = [(leased.item.id, leased.token) for leased in claimed.items]
        if place == "resolved":
            await actions.resolve(redis, "digits", one, token, Truth(label="3"))
            await add_items(redis, [item_of(client_id, f"{prefix}-link", claimed.items[0].item.key or "")], 100)
        elif place == "again":
            await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
            await actions.resolve(redis, "digits", one, token, Truth(label="3"))
            await write_policy(redis, "digits", ReviewPolicy())
        elif place == "skipped":
            await actions.skip(redis, "digits", one, token, "blurred")
        elif place == "escalated":
            await actions.escalate(redis, "digits", one, token, "odd")
    await record_predictions(redis, "digits", [waiting(client_id, f"{prefix}-p{n}") for n in range(3)], DAY_S)
    reports = [report(client_id, key) for key in (f"{prefix}-p1", f"{prefix}-0", f"{prefix}-unknown")]
    await record_outcomes(redis, "digits", reports, DAY_S)


async def dump(redis: Redis) -> str:
    """Returns all keys of Redis with all that is in them."""
    found = []
    async for name in redis.scan_iter(count=1000):
        kind: Any = await redis.type(name)
        content: Any
        match kind.decode():
            case "string":
                content = await redis.get(name)
            case "hash":
                content = await redis.hgetall(name)
            case "set":
                content = await redis.smembers(name)
            case "zset":
                content = await redis.zrange(name, 0, -1, withscores=True)
            case "list":
                content = await redis.lrange(name, 0, -1)
            case "stream":
                content = await redis.xrange(name)
            case _:
                raise AssertionError(kind)
        found.append(f"{name!r} {content!r}")
    text = "\n".join(found)
    return text.encode().decode("unicode_escape").encode("latin-1").decode("utf-8", "replace")


async def exported(redis: Redis) -> list[str]:
    rows = export_rows(redis, "digits", 0, lambda _: None, who="Ana", role="admin")
    return [row.client_id async for row in rows]


async def test_nothing_is_left(redis: Redis) -> None:
    await fill(redis, CLIENT, KEY)
    before = await dump(redis)
    assert all(part in before for part in (CLIENT, KEY, MARKER)), "otherwise this test sees nothing"
    ((item, *_), *_) = [access.ids async for access in read_access(redis, "digits")]
    gone = await forget_client(redis, "digits", CLIENT, DAY_S)
    assert gone == Forgotten(reviews=7, outcomes=3, predictions=3)
    after = await dump(redis)
    for part in (CLIENT, KEY, MARKER):
        assert part not in after
    names: list[Any] = [name async for name in redis.scan_iter()]
    left = {name.decode() for name in names}
    client = NAMES.client(CLIENT)
    figures = {NAMES.reviews(name) for name in ("counts", "entered")}
    assert left == {NAMES.access, NAMES.review_policy, f"{client}:forgotten", *figures}
    assert after.count(item) == 1, "the log keeps who saw an item, which says nothing of the client any more"
    assert (await read_counts(redis, "digits")).states == {state: {} for state in State}
    assert 0 < await redis.ttl(f"{client}:forgotten") <= DAY_S
    again = await forget_client(redis, "digits", CLIENT, DAY_S)
    assert again == Forgotten(reviews=0, outcomes=0, predictions=0)


async def test_others_keep_everything(redis: Redis) -> None:
    await fill(redis, "another", "their")
    counts = await read_counts(redis, "digits")
    rows, text = await exported(redis), await dump(redis)
    await fill(redis, CLIENT, KEY)
    assert CLIENT in await exported(redis)
    await forget_client(redis, "digits", CLIENT, DAY_S)
    assert (await read_counts(redis, "digits")).states == counts.states
    assert await exported(redis) == rows
    assert [one.client_id async for one in read_outcomes_since(redis, "digits")] == ["another"] * 3
    for line in text.splitlines():
        if ":review:" in line.partition(" ")[0]:
            assert line in await dump(redis)


async def test_very_many_items_go_in_several_steps(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget_module, "FORGET_AT_MOST", 20)
    await add_items(redis, [item_of(CLIENT, f"{KEY}-{number}") for number in range(90)], 1000)
    await record_outcomes(redis, "digits", [report(CLIENT, f"{KEY}-{number}") for number in range(15)], DAY_S)
    gone = await forget_client(redis, "digits", CLIENT, DAY_S)
    assert (gone.reviews, gone.outcomes) == (90, 15)
    assert CLIENT not in await dump(redis)


async def test_who_has_a_forgotten_item_is_told(redis: Redis) -> None:
    await add_items(redis, [item_of(CLIENT, KEY)], 100)
    (leased,) = (await actions.claim(redis, "digits", "Ana")).items
    await forget_client(redis, "digits", CLIENT, DAY_S)
    with pytest.raises(UnknownItemError, match="forgotten"):
        await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label="3"))
    assert CLIENT not in await dump(redis)


async def test_what_was_predicted_before_does_not_come_back(redis: Redis) -> None:
    before = now()
    await asyncio.sleep(0.01)
    await forget_client(redis, "digits", CLIENT, DAY_S)
    buffer = Predictions(redis, {"digits": Sampler("digits")})
    buffer.offer("digits", [waiting(CLIENT, KEY, before), waiting("another", "their", before)])
    await buffer.flush()
    await add_items(redis, [msgspec.structs.replace(item_of(CLIENT, KEY), at=before)], 100)
    text = await dump(redis)
    assert CLIENT not in text
    assert NAMES.prediction(item_id(CLIENT, KEY, b"")) not in text
    assert NAMES.prediction(item_id("another", "their", b"")) in text
    await asyncio.sleep(0.01)
    await add_items(redis, [item_of(CLIENT, KEY)], 100)
    assert CLIENT in await dump(redis), "what the client does from now on is another matter"


@pytest.mark.process
async def test_a_spool_that_drains_around_the_forgetting_brings_nothing_back(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    await asyncio.to_thread(valkey.start)
    redis = await connect(valkey.url)
    spool = Spool(tmp_path / "spool", 1_000_000)
    log = ReviewLog(redis, spool, 10_000)
    try:
        valkey.kill()
        fates = await asyncio.gather(*(log.add(item_of(CLIENT, f"{KEY}-{number}")) for number in range(600)))
        assert set(fates) == {"deferred"}
        assert await log.add(item_of("another", "their")) == "deferred"
        await asyncio.to_thread(valkey.start)
        log.start()
        seen = 0
        while not seen:  # the spool is on its way, a group at a time
            seen = await redis.zcard(NAMES.reviews("open"))
        assert seen < 601, "not raced"
        await forget_client(redis, "digits", CLIENT, DAY_S)
        for _ in range(100):
            if not spool.size:
                break
            await asyncio.sleep(0.1)
        text = await dump(redis)
        assert CLIENT not in text
        assert "another" in text
        assert (await read_counts(redis, "digits")).states[State.OPEN] == {"low_confidence": 1}
        files = [path for path in (tmp_path / "spool").iterdir() if path.stat().st_size]
        assert files == [], "neither is it on the disk"
    finally:
        await log.close()
        await redis.aclose()
        valkey.kill()
