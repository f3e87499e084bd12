"""What the webhook is told of trials: what happened by itself arrives, in order, signed, with what it rests on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from rollout.judge.verdict import Verdict
from rollout.keys import Keys
from rollout.routing.by_itself import carry_out_act
from rollout.routing.changes import ramp
from rollout.routing.outbox import Acts
from rollout.routing.splits import write_split
from rollout.store import Redis
from rollout.webhook import Webhook
from tests.review.test_webhook import KEY, Receiver, receiver, until  # noqa: F401  a fixture
from tests.routing.trials import SPLIT

STEP = Verdict(verdict="hold", reason="labels_missing", detail="no labels", next_share=0.05)
BACK = Verdict(verdict="rollback", reason="failures", detail="it fails")


@asynccontextmanager
async def telling(redis: Redis, to: Receiver) -> AsyncIterator[None]:
    webhook = Webhook(redis, Acts(redis, "digits"), to.url, KEY, poll_s=0.05, retry_s=0.05)
    task = asyncio.create_task(webhook.run())
    await until(lambda: redis.exists(Keys("digits").acts_webhook))
    yield
    task.cancel()
    await asyncio.wait([task])


async def test_what_happened_by_itself_is_told_once_and_in_order(
    redis: Redis,
    receiver: Receiver,  # noqa: F811
) -> None:
    split = await write_split(redis, "digits", SPLIT)
    split = await carry_out_act(redis, "digits", split, "step", STEP)
    async with telling(redis, receiver):
        receiver.statuses = [500, 307]
        theirs = msgspec.structs.replace(ramp(split, 0.1), by="ada", verdict=None)
        split = await write_split(redis, "digits", theirs)
        split = await carry_out_act(redis, "digits", split, "step", STEP)
        await carry_out_act(redis, "digits", split, "rollback", BACK)
        await until(lambda: len(receiver.taken) == 2)
    async with telling(redis, receiver):
        await asyncio.sleep(0.3)
    assert [event["type"] for event in receiver.taken] == ["trial.stepped", "trial.rolled_back"]
    assert receiver.attempts == ["digits-split-4"] * 3 + ["digits-split-5"]
    back = receiver.taken[-1]["data"]
    assert (back["challenger"], back["champion"], back["revision"]) == ("v2", "v1", 5)
    assert (back["why"], back["verdict"]["reason"]) == ("it fails", "failures")


async def test_a_promotion_is_told(redis: Redis, receiver: Receiver) -> None:  # noqa: F811
    split = await write_split(redis, "digits", SPLIT)
    async with telling(redis, receiver):
        proven = Verdict(verdict="promote", reason="proven", detail="it is as good")
        await carry_out_act(redis, "digits", split, "promote", proven)
        await until(lambda: receiver.taken)
    assert receiver.taken[0]["type"] == "trial.promoted"
    assert receiver.taken[0]["data"]["champion"] == receiver.taken[0]["data"]["challenger"] == "v2"
