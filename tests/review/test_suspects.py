"""Labels that look wrong, in the queue: each once, and they say nothing of how good the model is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rollout.errors import ConfigError
from rollout.heads import Classification, Truth
from rollout.keys import Keys
from rollout.review import actions
from rollout.review.export import encode_row, export_rows
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.review.queue import Budget
from rollout.review.stats import review_stats
from rollout.review.suspects import Doubted, Queued, queue_suspects
from rollout.store import Redis
from service.console.item_view import item_view
from tests.review.decisions import fill
from tests.review.items import SCORES, make_item

PLENTY = Budget(10**9, 10**9)
HEAD = Classification(labels=list(SCORES))


def doubted(number: int) -> Doubted:
    answer = {"label": "3", "confidence": 0.4, "scores": dict(SCORES)}
    inputs = msgspec.Raw(msgspec.json.encode({"image": [[number]]}))
    return Doubted(part="train", key=f"{number:016x}", inputs=inputs, answer=answer)


async def queue(redis: Redis, *numbers: int, limit: int = 1000, budget: Budget = PLENTY) -> Queued:
    rows = [doubted(number) for number in numbers]
    return await queue_suspects(
        redis, "digits", "v2", "onnx", HEAD, rows, fields=["image"], limit=limit, budget=budget, secret=b"secret"
    )


async def test_a_row_is_queued_once_even_when_it_was_decided(redis: Redis) -> None:
    assert await queue(redis, 1, 2) == Queued(queued=2, already_there=0, kept_out=0)
    assert await queue(redis, 2, 3) == Queued(queued=1, already_there=1, kept_out=0)
    claimed = (await actions.claim(redis, "digits", "ada", 9)).items
    assert {one.item.reason for one in claimed} == {"suspect_label"}
    assert {(one.item.client_id, one.item.arm, one.item.pi) for one in claimed} == {("recipe:train", "none", 1.0)}
    await actions.resolve(redis, "digits", claimed[0].item.id, claimed[0].token, Truth(label="8"))
    assert await queue(redis, 1, 2, 3) == Queued(queued=0, already_there=3, kept_out=0)


async def test_the_queue_has_bounds(redis: Redis) -> None:
    assert await queue(redis, 1, 2, 3, limit=2) == Queued(queued=2, already_there=0, kept_out=1)
    assert (await queue(redis, 4, budget=Budget(10, 10))).kept_out == 1


async def test_a_policy_that_redacts_an_input_keeps_them_out(redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(redact=["image"]))
    with pytest.raises(ConfigError, match="redacts image"):
        await queue(redis, 1)
    assert not await redis.exists(Keys("digits").reviews("open"))


async def test_estimates_are_those_without_them(redis: Redis) -> None:
    await fill(redis, [make_item(1), make_item(2, reason="audit", pi=0.5)])
    for label in ("3", "8"):
        (leased,) = (await actions.claim(redis, "digits", "ada")).items
        await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label=label))
    before = await review_stats(redis, "digits")
    assert before.overall.estimate is not None
    await queue(redis, 1, 2, 3)
    for leased in (await actions.claim(redis, "digits", "ada", 2)).items:
        await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label="8"))
    after = await review_stats(redis, "digits")
    assert (after.overall, after.versions) == (before.overall, before.versions)
    assert after.states["resolved"]["suspect_label"] == 2  # type: ignore[index]
    assert after.states["open"] == {"suspect_label": 1}  # type: ignore[index]


async def test_a_reviewer_reads_why_and_nothing_that_biases(redis: Redis) -> None:
    await queue(redis, 1)
    (leased,) = (await actions.claim(redis, "digits", "ada")).items
    view: dict[str, Any] = item_view(leased, {})
    assert "The label that the data have may be wrong" in view["html"]
    assert "<dt>Arm</dt>" not in view["html"]
    assert (view["accepted"], view["said"]) == (None, None)


async def test_the_export_says_why(redis: Redis) -> None:
    await queue(redis, 1)
    (leased,) = (await actions.claim(redis, "digits", "ada")).items
    await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label="8"))
    rows = export_rows(redis, "digits", None, dict[str, dict[str, Any]]().get, who="ada", role="admin")
    (row,) = [json.loads(encode_row(one)) async for one in rows]
    wanted = {
        "reason": "suspect_label",
        "client_id": "recipe:train",
        "key": f"{1:016x}",
        "label": "8",
        "arm": "none",
    }
    assert {name: row[name] for name in wanted} == wanted
