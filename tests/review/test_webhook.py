"""The webhook: every decision arrives, in order, signed, at least once, whatever fails in between."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from rollout.config import Settings
from rollout.errors import ConfigError
from rollout.heads import Truth
from rollout.keys import Keys
from rollout.metrics import WEBHOOKS
from rollout.review import actions
from rollout.review.forget import forget_client
from rollout.review.item import item_id, milliseconds
from rollout.review.outbox import Decisions
from rollout.review.queue import add_items
from rollout.store import Redis
from rollout.webhook import LOCK_S, Webhook, signed
from tests.conftest import free_port
from tests.review.items import make_item

KEY = b"a key of twenty-four bytes or more"
NAMES = Keys("digits")


class Receiver:
    """A team's own service.

    Attributes:
        statuses: What it answers with next; 204 when there is nothing left.
        taken: Every event that it took, in order.
        attempts: The ID of every attempt.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/labels"
        self.statuses: list[int] = []
        self.taken: list[dict[str, Any]] = []
        self.attempts: list[str] = []
        self.before: Callable[[], Any] | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/labels", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        message, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        assert abs(int(timestamp) - time.time()) < 60
        expected = hmac.new(KEY, f"{message}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
        assert request.headers["content-type"] == "application/json"
        self.attempts.append(message)
        status = self.statuses.pop(0) if self.statuses else 204
        if self.before is not None:
            await self.before()
        if status < 300:
            self.taken.append(msgspec.json.decode(body))
        return web.Response(status=status, headers={"Location": "/labels"} if status == 307 else {})

    @property
    def labels(self) -> list[tuple[str, str | None]]:
        return [(event["data"]["key"], event["data"].get("label")) for event in self.taken]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


def webhook(redis: Redis, receiver: Receiver) -> Webhook:
    return Webhook(
        redis, Decisions(redis, "digits"), receiver.url, KEY, poll_s=0.05, retry_s=0.05, longest_retry_s=0.2
    )


@asynccontextmanager
async def delivering(redis: Redis, receiver: Receiver) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(webhook(redis, receiver).run())
    await until(lambda: redis.exists(NAMES.webhook))
    yield task
    task.cancel()
    await asyncio.wait([task])


async def until(condition: Callable[[], Any]) -> None:
    """Waits until something is so."""
    give_up = time.monotonic() + 15
    while True:
        found = condition()
        if asyncio.iscoroutine(found) or hasattr(found, "__await__"):
            found = await found
        if found:
            return
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


async def is_noted(redis: Redis) -> bool:
    """Whether the last decision arrived, and that was noted."""
    found: list[Any] = await redis.zrange(NAMES.reviews("changes"), -1, -1, withscores=True)
    ((_, last),) = found
    return int(await redis.get(NAMES.webhook) or 0) == int(last)


async def decide(redis: Redis, *numbers: int, label: str = "3") -> list[actions.Leased]:
    """Resolves the items with these numbers, in order."""
    decided = []
    for number in numbers:
        await add_items(redis, [make_item(number)], 100)
        (leased,) = (await actions.claim(redis, "digits", "Ana", filters={"key": f"key-{number}"})).items
        await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label=label))
        decided.append(leased)
    return decided


async def test_a_decision_arrives_with_all_but_the_inputs(redis: Redis, receiver: Receiver) -> None:
    async with delivering(redis, receiver):
        (leased,) = await decide(redis, 1, label="8")
        await until(lambda: receiver.taken)
    (event,) = receiver.taken
    data = event.pop("data")
    assert event == {"type": "review.resolved", "timestamp": event["timestamp"]}
    cursor, decided_at = data.pop("cursor"), data.pop("decided_at")
    assert 0 <= milliseconds(event["timestamp"]) - milliseconds(decided_at) < 5000
    assert receiver.attempts == [f"{leased.item.id}-{cursor}"]
    assert data == {
        "id": leased.item.id,
        "model": "digits",
        "client_id": "client-1",
        "key": "key-1",
        "label": "8",
        "reviewers": ["Ana"],
        "reason": "low_confidence",
        "pi": 1.0,
        "arm": "control",
        "version": "v1",
        "links": [],
    }


async def test_what_was_decided_before_is_left_to_the_export(redis: Redis, receiver: Receiver) -> None:
    await decide(redis, 1)
    async with delivering(redis, receiver):
        await decide(redis, 2)
        await until(lambda: receiver.taken)
    assert receiver.labels == [("key-2", "3")]


async def test_failures_are_tried_again_in_order(redis: Redis, receiver: Receiver) -> None:
    failed = WEBHOOKS.labels("digits", "failed")._value.get()
    delivered = WEBHOOKS.labels("digits", "delivered")._value.get()
    receiver.statuses = [500, 307, 204, 429]
    async with delivering(redis, receiver):
        await decide(redis, *range(5))
        await until(lambda: len(receiver.taken) == 5)
        await until(lambda: is_noted(redis))
    assert receiver.labels == [(f"key-{number}", "3") for number in range(5)]
    assert len(receiver.attempts) == 8
    assert receiver.attempts[0] == receiver.attempts[1] == receiver.attempts[2], "an attempt keeps its ID"
    assert WEBHOOKS.labels("digits", "failed")._value.get() - failed == 3
    assert WEBHOOKS.labels("digits", "delivered")._value.get() - delivered == 5


async def test_a_receiver_that_is_down_for_a_while_misses_nothing(redis: Redis, receiver: Receiver) -> None:
    async with delivering(redis, receiver):
        await decide(redis, 1)
        await until(lambda: receiver.taken)
        await receiver.stop()
        await decide(redis, 2, 3)
        await asyncio.sleep(0.5)
        await decide(redis, 4)
        await receiver.start()
        await until(lambda: len(receiver.taken) == 4)
    assert receiver.labels == [(f"key-{number}", "3") for number in (1, 2, 3, 4)]


async def test_an_undone_decision_is_retracted(redis: Redis, receiver: Receiver) -> None:
    async with delivering(redis, receiver):
        (leased,) = await decide(redis, 1)
        await until(lambda: receiver.taken)
        await actions.undo(redis, "digits", leased.item.id, leased.token)
        await until(lambda: len(receiver.taken) == 2)
        await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label="8"))
        await until(lambda: len(receiver.taken) == 3)
    assert [event["type"].removeprefix("review.") for event in receiver.taken] == [
        "resolved",
        "retracted",
        "resolved",
    ]
    assert receiver.labels == [("key-1", "3"), ("key-1", None), ("key-1", "8")]


async def test_the_same_inputs_under_another_key_bring_the_label_again(redis: Redis, receiver: Receiver) -> None:
    async with delivering(redis, receiver):
        await decide(redis, 1)
        await until(lambda: receiver.taken)
        link = make_item(1, id=item_id("client-1", "key-9", b""), key="key-9")
        await add_items(redis, [link], 100)
        await until(lambda: len(receiver.taken) == 2)
    assert receiver.taken[-1]["data"]["links"] == [{"id": link.id, "key": "key-9"}]
    assert receiver.taken[-1]["data"]["label"] == "3"


async def test_a_deliverer_that_dies_before_it_notes_the_delivery_delivers_again(
    redis: Redis, receiver: Receiver
) -> None:
    answered = asyncio.Event()

    async def take_and_hang() -> None:
        answered.set()
        receiver.before = None
        await asyncio.sleep(0.3)  # meanwhile whoever waits for the answer dies

    receiver.before = take_and_hang
    async with delivering(redis, receiver) as task:
        await decide(redis, 1, 2)
        await answered.wait()
        task.cancel()
        await asyncio.wait([task])
    await asyncio.sleep(0.5)
    async with delivering(redis, receiver):
        await until(lambda: ("key-2", "3") in receiver.labels)
    assert receiver.attempts[0] == receiver.attempts[1], "the receiver can tell that it is the same"
    assert [key for key, _ in receiver.labels] in (["key-1", "key-2"], ["key-1", "key-1", "key-2"])


async def test_of_several_deliverers_one_delivers_and_another_takes_over(
    redis: Redis, receiver: Receiver
) -> None:
    async with delivering(redis, receiver) as first, delivering(redis, receiver), delivering(redis, receiver):
        await decide(redis, *range(10))
        await until(lambda: is_noted(redis))
        first.cancel()
        await asyncio.wait([first])
        await decide(redis, *range(10, 20))
        await until(lambda: len(receiver.taken) >= 20)
    assert receiver.labels == [(f"key-{number}", "3") for number in range(20)], "each once: none died on its way"


async def test_a_lock_whose_owner_died_expires(
    redis: Redis, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await redis.set(f"{NAMES.webhook}:lock", "whoever died", px=700)
    await redis.set(NAMES.webhook, 0)
    await decide(redis, 1)
    async with delivering(redis, receiver):
        await asyncio.sleep(0.3)
        assert not receiver.taken
        await until(lambda: receiver.taken)
        assert 20 < await redis.ttl(f"{NAMES.webhook}:lock") <= LOCK_S


async def test_what_was_forgotten_meanwhile_is_not_sent(redis: Redis, receiver: Receiver) -> None:
    async def forget() -> None:
        receiver.before = None
        await forget_client(redis, "digits", "client-2", 60)

    async with delivering(redis, receiver):
        await redis.set(f"{NAMES.webhook}:lock", "somebody else", px=1000)  # so that all three are read at once
        await decide(redis, 1, 2, 3)
        receiver.before = forget
        await until(lambda: len(receiver.taken) == 2)
    assert receiver.labels == [("key-1", "3"), ("key-3", "3")]


async def test_410_ends_it_until_the_next_start(redis: Redis, receiver: Receiver) -> None:
    receiver.statuses = [410]
    async with delivering(redis, receiver) as task:
        await decide(redis, 1)
        await asyncio.wait_for(task, 15)
    assert len(receiver.attempts) == 1
    async with delivering(redis, receiver):
        await until(lambda: receiver.taken)
    assert receiver.labels == [("key-1", "3")]


def test_the_signature_is_that_of_the_specification() -> None:
    """With the example that the libraries of Standard Webhooks are tested with."""
    key = Settings(webhook_secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").webhook_key()
    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', key)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize(
    ("url", "secret", "words"),
    [
        ("receiver.example/labels", "x" * 24, "whole URL"),
        ("ftp://receiver.example", "x" * 24, "whole URL"),
        ("https://", "x" * 24, "whole URL"),
        ("https://receiver.example:99999999", "x" * 24, "whole URL"),
        ("https://receiver.example", "", "ROLLOUT_WEBHOOK_SECRET must"),
        ("https://receiver.example", "a short one", "ROLLOUT_WEBHOOK_SECRET must"),
        ("https://receiver.example", "whsec_no base64!", "ROLLOUT_WEBHOOK_SECRET must"),
        ("https://receiver.example", "whsec_c2hvcnQ=", "ROLLOUT_WEBHOOK_SECRET must"),
    ],
)
def test_settings_that_cannot_work_are_refused(url: str, secret: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        Settings(webhook_url=url, webhook_secret=secret)
    assert not secret or secret not in str(refused.value)


def test_a_plain_secret_is_its_own_key() -> None:
    settings = Settings(webhook_url="https://a.example/x", webhook_secret="no base64, but long enough")
    assert settings.webhook_key() == b"no base64, but long enough"
