"""``make reviews``: a million open items. How long does a claim take, what does an item weigh and cost?

A Valkey of its own with the append-only file written at each commit, as the embedded one has it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import click
import msgspec
from rich.console import Console
from rich.table import Table

from rollout.config import Settings
from rollout.embedded import running_redis
from rollout.heads import Classification, Truth
from rollout.review import actions, log
from rollout.review.item import ReviewItem, item_id
from rollout.review.log import ReviewLog
from rollout.review.queue import FOREVER, add_items
from rollout.review.spool import Spool
from rollout.store import Redis, connect

T = TypeVar("T")

CHUNK = 1000
LABELS = [str(digit) for digit in range(10)]
TASK = msgspec.Raw(msgspec.json.encode(Classification(labels=LABELS, review_threshold=0.9)))
TEXT = b'{"text":"the delivery was late, and the box was open when it came"}'
IMAGE = msgspec.json.encode({"image": [[column * row % 256 for column in range(32)] for row in range(32)]})
ADDERS = 32


@click.command()
@click.option("--items", default=1_000_000, show_default=True, help="Open items.")
@click.option("--claims", default=2000, show_default=True, help="Claims, each followed by an answer.")
@click.option("--seconds", default=5.0, show_default=True, help="How long items are added under load, each way.")
def main(items: int, claims: int, seconds: float) -> None:
    """Measures the review queue."""
    with (
        tempfile.TemporaryDirectory(prefix="rollout-reviews-") as home,
        running_redis(Settings(home=Path(home))) as url,
    ):
        asyncio.run(_measure(url, Path(home), items, claims, seconds))


async def _measure(url: str, home: Path, items: int, claims: int, seconds: float) -> None:
    redis = await connect(url)
    table = Table("what", "found", title=f"The review queue with {items:,} open items")
    numbers = itertools.count()
    for kind, inputs, count in (("a line of text", TEXT, items), ("an image of 32×32 in JSON", IMAGE, 5000)):
        empty = await _memory(redis)
        since = time.perf_counter()
        for _ in range(0, count, CHUNK):
            await add_items(redis, [_item(next(numbers), inputs) for _ in range(CHUNK)], FOREVER)
        per_item = (await _memory(redis) - empty) / count
        rate = count / (time.perf_counter() - since)
        table.add_row(f"memory of an item with {kind}", f"{per_item:,.0f} bytes, {len(inputs):,} of them inputs")
        table.add_row("items added a second, 1,000 at a time", f"{rate:,.0f}")
    claiming, answering = await _work(redis, claims)
    table.add_row("claim, p50 / p99", _quantiles(claiming))
    table.add_row("answer, p50 / p99", _quantiles(answering))
    most = log.COMMIT_AT_MOST
    for pause in (0.3, 0.02):
        for name, at_most in (("in groups, as served", most), ("one at a time", 1)):
            with patch.object(log, "COMMIT_AT_MOST", at_most):
                latencies = await _add_under_load(redis, home, seconds, pause)
            rate = len(latencies) / seconds
            table.add_row(f"durable, {rate:,.0f} items a second, {name}: p50 / p99", _quantiles(latencies))
    Console().print(table)
    await redis.aclose()


async def _work(redis: Redis, claims: int) -> tuple[list[float], list[float]]:
    claiming, answering = [], []
    for number in range(claims):
        reviewer = f"reviewer-{number % 20}"
        claim, seconds = await _timed(actions.claim(redis, "texts", reviewer))
        claiming.append(seconds)
        (leased,) = claim.items
        answer = Truth(label=LABELS[number % 10])
        _, seconds = await _timed(actions.resolve(redis, "texts", leased.item.id, leased.token, answer))
        answering.append(seconds)
    return claiming, answering


async def _add_under_load(redis: Redis, home: Path, seconds: float, pause: float) -> list[float]:
    reviews = ReviewLog(redis, Spool(home / "spool", 0), FOREVER)
    until = time.perf_counter() + seconds
    latencies: list[float] = []
    numbers = itertools.count(time.time_ns())

    async def add() -> None:
        while time.perf_counter() < until:
            fate, took = await _timed(reviews.add(_item(next(numbers), IMAGE)))
            assert fate == "queued", fate  # noqa: S101
            latencies.append(took)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    await asyncio.gather(*(add() for _ in range(ADDERS)))
    await reviews.close()
    return latencies


async def _timed(call: Awaitable[T]) -> tuple[T, float]:
    since = time.perf_counter()
    found = await call
    return found, time.perf_counter() - since


async def _memory(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory_dataset"])


def _item(number: int, inputs: bytes) -> ReviewItem:
    client_id, key = f"client-{number % 50_000}", f"order-{number}"
    first = 0.3 + number % 400 / 1000
    return ReviewItem(
        id=item_id(client_id, key, inputs),
        model="texts",
        client_id=client_id,
        key=key,
        reason="low_confidence",
        pi=1.0,
        at=f"2026-11-22T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}.000Z",
        arm="champion",
        version="v1",
        variant="onnx",
        revision=1,
        threshold=0.9,
        task=TASK,
        answer={
            "label": "3",
            "confidence": first,
            "scores": {label: first if label == "3" else (1 - first) / 9 for label in LABELS},
        },
        same=item_id(client_id, key, inputs),
        inputs=msgspec.Raw(inputs),
    )


def _quantiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1000:.2f} / {ordered[int(len(ordered) * 0.99)] * 1000:.2f} ms"


if __name__ == "__main__":
    main()
