"""The micro-batcher: at once when idle, together when busy, each row on its own when something is wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.errors import DeadlineExceededError, OverloadedError, PredictionFailedError, RolloutError
from rollout.inference.batcher import Batcher


class Item(NamedTuple):
    """A number to be doubled."""

    number: int
    deadline: float


def item(number: int, seconds: float = 30) -> Item:
    return Item(number, time.monotonic() + seconds)


class Doubler:
    """Doubles numbers, remembers its batches, and fails on batches that hold a poisonous number."""

    def __init__(self, poison: frozenset[int] = frozenset()) -> None:
        self.batches: list[list[int]] = []
        self.poison = poison

    def __call__(self, items: Sequence[Item]) -> list[int | RolloutError]:
        numbers = [one.number for one in items]
        self.batches.append(numbers)
        if self.poison & set(numbers):
            raise ValueError("poison")
        return [number * 2 for number in numbers]


def batcher(run: Doubler, *, threaded: bool = False, **limits: int) -> Batcher[Item, int]:
    return Batcher(
        run,
        max_batch=limits.get("max_batch", 8),
        max_queue=limits.get("max_queue", 100),
        executor=ThreadPoolExecutor(1) if threaded else None,
    )


async def test_one_row_is_dispatched_at_once() -> None:
    run = Doubler()
    future = batcher(run).submit([item(4)])
    await asyncio.sleep(0)  # one turn of the event loop: no window to wait out
    await asyncio.sleep(0)
    assert future.done()
    assert future.result() == [8]
    assert run.batches == [[4]]


@pytest.mark.parametrize("threaded", [False, True])
async def test_rows_of_many_callers_share_batches_and_keep_their_order(threaded: bool) -> None:
    run = Doubler()
    under_test = batcher(run, threaded=threaded)
    futures = [under_test.submit([item(3 * n), item(3 * n + 1), item(3 * n + 2)]) for n in range(10)]
    assert await asyncio.gather(*futures) == [[6 * n, 6 * n + 2, 6 * n + 4] for n in range(10)]
    assert [len(batch) for batch in run.batches] == [8, 8, 8, 6]


async def test_collects_only_while_the_runtime_is_busy() -> None:
    gate, entered = threading.Event(), threading.Event()
    batches: list[int] = []

    def run(items: Sequence[Item]) -> list[int | RolloutError]:
        batches.append(len(items))
        entered.set()
        gate.wait(10)
        return [one.number for one in items]

    under_test: Batcher[Item, int] = Batcher(run, max_batch=8, max_queue=100, executor=ThreadPoolExecutor(1))
    futures = [under_test.submit([item(0)])]
    await asyncio.to_thread(entered.wait, 10)
    futures += [under_test.submit([item(number)]) for number in range(1, 6)]
    await asyncio.sleep(0.05)
    assert batches == [1]
    gate.set()
    await asyncio.gather(*futures)
    assert batches == [1, 5]


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_poisonous_row_fails_alone(threaded: bool) -> None:
    run = Doubler(frozenset({5}))
    under_test = batcher(run, threaded=threaded)
    outcomes = await asyncio.gather(*(under_test.submit([item(number)]) for number in range(8)))
    for number, (outcome,) in enumerate(outcomes):
        if number == 5:
            assert isinstance(outcome, PredictionFailedError)
            assert "poison" in outcome.detail
        else:
            assert outcome == number * 2


@settings(max_examples=40)
@given(st.sets(st.integers(0, 30)), st.integers(1, 31))
def test_whatever_is_poisonous_is_found(poison: set[int], max_batch: int) -> None:
    async def go() -> list[int | RolloutError]:
        return await batcher(Doubler(frozenset(poison)), max_batch=max_batch).submit([item(n) for n in range(31)])

    for number, outcome in enumerate(asyncio.run(go())):
        assert isinstance(outcome, PredictionFailedError) == (number in poison)


async def test_a_run_that_loses_rows_is_a_failure_not_a_shift() -> None:
    under_test: Batcher[Item, int] = Batcher(
        lambda items: [one.number for one in items[: max(1, len(items) - 1)]], max_batch=8, max_queue=9
    )
    assert await under_test.submit([item(1), item(2)]) == [1, 2], "halves of one row each still fit"


async def test_a_row_past_its_deadline_costs_nothing() -> None:
    run = Doubler()
    (late, fine) = await batcher(run).submit([item(1, seconds=-1), item(2)])
    assert isinstance(late, DeadlineExceededError)
    assert late.headers == {"Retry-After": "1"}
    assert fine == 4
    assert run.batches == [[2]]


async def test_a_runtime_that_hangs_keeps_nobody_beyond_the_deadline() -> None:
    gate = threading.Event()
    executor = ThreadPoolExecutor(1)

    def hang(items: Sequence[Item]) -> list[int | RolloutError]:
        gate.wait(10)
        return [one.number for one in items]

    under_test: Batcher[Item, int] = Batcher(hang, max_batch=1, max_queue=9, executor=executor)
    running, waiting = under_test.submit([item(1, 0.1)]), under_test.submit([item(2, 0.1)])
    for (outcome,) in await asyncio.wait_for(asyncio.gather(running, waiting), 2):
        assert isinstance(outcome, DeadlineExceededError)
    gate.set()
    assert await under_test.submit([item(3)]) == [3], "it goes on once the runtime does"
    executor.shutdown()


async def test_a_full_queue_refuses_at_once() -> None:
    under_test = batcher(Doubler(), max_queue=10)
    accepted = under_test.submit([item(number) for number in range(8)])
    with pytest.raises(OverloadedError, match="8 rows are waiting") as caught:
        under_test.submit([item(number) for number in range(3)])
    assert caught.value.headers == {"Retry-After": "1"}
    assert len(await accepted) == 8
    assert await under_test.submit([item(1)]) == [2]


async def test_a_caller_that_went_away_costs_nothing() -> None:
    run = Doubler()
    under_test = batcher(run)
    gone, here = under_test.submit([item(1)]), under_test.submit([item(2)])
    gone.cancel()
    assert await here == [4]
    assert run.batches == [[2]]
