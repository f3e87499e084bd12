"""Values in Redis that Rollout did not write: their key is named in a sentence, and the others are read."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rollout.cli.gc import _reasons
from rollout.clock import utc_now
from rollout.config import Settings
from rollout.errors import StoredValueError, StoreUnavailableError
from rollout.inference import served_splits
from rollout.inference.intake import Intake
from rollout.keys import Keys
from rollout.review.counts import read_counts
from rollout.review.outbox import Decisions
from rollout.review.outcomes import read_outcomes_since
from rollout.review.policy import read_policy
from rollout.review.queue import read_items
from rollout.review.records import read_changes
from rollout.routing.drift import read_drift
from rollout.routing.improvement import read_improvement
from rollout.routing.looks import read_counted, read_looks
from rollout.routing.named import read_states
from rollout.routing.split import Split
from rollout.routing.splits import read_history, read_models, read_quarantine, read_split, write_split
from rollout.routing.traffic import read_traffic, read_workers
from rollout.routing.trial_evidence import read_trial
from rollout.routing.trial_reviews import read_until
from rollout.store import Redis, client_of
from rollout.webhook import Webhook

STRANGE = (
    b"\xff\xfe",
    b"{{",
    b"",
    b"null",
    b"[1, 2]",
    b'{"champion": 1, "first": "x", "model": 3}',
    b"[" * 100_000,
)
KEYS = Keys("digits")
READERS: dict[str, Callable[[Redis], Awaitable[Any]]] = {
    KEYS.split: lambda redis: read_split(redis, "digits"),
    KEYS.review_policy: lambda redis: read_policy(redis, "digits"),
    KEYS.drift_report: lambda redis: read_drift(redis, "digits"),
    KEYS.improvement: lambda redis: read_improvement(redis, "digits"),
    KEYS.counted: lambda redis: read_counted(redis, "digits", 1),
    KEYS.reviewed_until: lambda redis: read_until(redis, "digits"),
}


@pytest.mark.parametrize("key", READERS)
async def test_a_value_that_is_none_of_ours_is_named(redis: Redis, key: str) -> None:
    for value in STRANGE:
        if key in (KEYS.review_policy, KEYS.improvement) and value.startswith(b"{") and value != b"{{":
            continue  # of which no field is required
        await redis.set(key, value)
        with pytest.raises(StoredValueError) as caught:
            await READERS[key](redis)
        assert caught.value.detail.startswith(f"{key} in Redis holds what Rollout does not write there")
        assert len(caught.value.detail.splitlines()) == 1
        assert caught.value.__cause__ is None  # or the log said that Redis does not answer


async def test_one_broken_model_hides_no_other(
    redis: Redis,
    valkey_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await write_split(redis, "whole", Split(champion="v1"))
    await redis.set(Keys("broken").split, b"\xff")
    await redis.set(Keys("senseless").split, b'{"champion": "v1", "challenger": "v2"}')  # without a key
    await redis.set(b"rollout:{\xff}:split", b"{}")
    await write_split(redis, "odd", Split(champion="v1"))
    await redis.rpush(Keys("odd").split_history, b"[]")
    assert await read_models(redis) == ["broken", "odd", "senseless", "whole"]
    assert "rollout:{\\xff}:split" in caplog.text
    states = await read_states(redis)
    assert not states["whole"].trouble
    for name in ("broken", "senseless"):
        assert Keys(name).split in states[name].trouble
    assert Keys("odd").split_history in states["odd"].trouble
    assert not states["odd"].roles()
    for name in ("broken", "odd", "senseless"):  # nothing of it is removed
        (why,) = _reasons(name, ["v1"], states[name], 1, signed=True).values()
        assert "nobody knows what is named" in why
    monkeypatch.setattr(served_splits, "bundle_names", lambda: {"whole", "broken", "senseless"})
    client = client_of(valkey_url)
    assert list(await served_splits.read_served(client, Settings(home=tmp_path))) == ["whole"]
    await client.aclose()
    assert "broken: rollout:{broken}:split in Redis holds" in caplog.text
    assert "it is not served" in caplog.text


async def test_what_is_one_of_many_is_left_out_and_said(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    await redis.hset(KEYS.workers, mapping={"a": b"\xff", "b": b"[]"})
    await redis.xadd(KEYS.looks, {b"\xff": b"\xff"})
    tick = int(time.time()) // 10
    await redis.hset(KEYS.traffic(tick), mapping={b"\xff|x": b"x", b"a|b|c|d": b"1", b"champion|v1|rows": b"x"})
    ids = ["0" * 32, "1" * 32]
    await redis.set(KEYS.review(ids[0]), b"{")
    assert await read_workers(redis, "digits") == []
    assert await read_looks(redis, "digits", 1) == []
    assert len(await read_traffic(redis, "digits", 60)) <= 1
    assert await read_items(redis, "digits", ids) == []
    for key in (KEYS.workers, KEYS.looks, KEYS.traffic(tick), KEYS.review(ids[0])):
        assert f"{key} in Redis holds" in caplog.text
    assert "Traceback" not in caplog.text


async def test_figures_and_cursors_that_are_none_are_named(redis: Redis) -> None:
    split = Split(champion="v1", challenger="v2", experiment="e", share=0.1, at=utc_now())
    evidence, counts, entered = KEYS.evidence(0), KEYS.reviews("counts"), KEYS.reviews("entered")
    changes, gathered = KEYS.reviews("changes"), KEYS.gathered("outcomes")
    intake = Intake(redis, "digits", pytest.fail)
    for key, field, read in (
        (evidence, "champion|rows", lambda: read_trial(redis, "digits", [split])),
        (evidence, "champion", lambda: read_trial(redis, "digits", [split])),
        (evidence, "control|accuracy|9999999|y", lambda: read_trial(redis, "digits", [split])),
        (counts, "open||low_confidence", lambda: read_counts(redis, "digits")),
        (entered, "low_confidence|v1|champion|weight", lambda: read_counts(redis, "digits")),
        (entered, "low_confidence", lambda: read_counts(redis, "digits")),
        (KEYS.reviews("excess"), "volume", lambda: read_counts(redis, "digits")),
        (gathered, "", intake.gather),
        (KEYS.webhook, "", Webhook(redis, Decisions(redis, "digits"), "http://127.0.0.1:1", b"key")._cursor),
        (KEYS.outcomes, "0" * 32, lambda: anext(read_outcomes_since(redis, "digits"))),
        (changes, "0" * 32, lambda: anext(read_changes(redis, "digits"))),
        (changes, b"\xff", lambda: anext(read_changes(redis, "digits"))),
    ):
        if key in (changes, KEYS.outcomes):
            scores: Any = {field: 1.0 if isinstance(field, bytes) else math.inf}
            await redis.zadd(key, scores)
        elif field:
            await redis.hset(key, field, "x" if field != "control|accuracy|9999999|y" else "1")
        else:
            await redis.set(key, "x")
        with pytest.raises(StoredValueError) as caught:
            await read()
        assert caught.value.detail.startswith(f"{key} in Redis holds"), field
        await redis.delete(key)


async def test_what_cannot_be_read_stays_in_quarantine(redis: Redis) -> None:
    await redis.hset(KEYS.quarantine, mapping={"abc": b"\xff", "def": json.dumps([])})
    found = await read_quarantine(redis, "digits")
    assert list(found) == ["abc", "def"]
    assert all(KEYS.quarantine in one.why for one in found.values())


async def test_another_kind_of_value_is_no_silence(redis: Redis) -> None:
    await redis.sadd(KEYS.split, "x")
    with pytest.raises(StoreUnavailableError, match="holds another kind of value"):
        await read_split(redis, "digits")


async def test_a_broken_revision_is_named(redis: Redis) -> None:
    await write_split(redis, "digits", Split(champion="v1"))
    await redis.rpush(KEYS.split_history, b"null")
    with pytest.raises(StoredValueError, match="split:history in Redis holds"):
        await read_history(redis, "digits")
