"""The micro-batcher: dispatches at once when idle, and collects only while the runtime is busy."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from rollout.bundle.parity import count, take
from rollout.bundle.schema import Arrays
from rollout.errors import DeadlineExceededError, OverloadedError, PredictionFailedError, RolloutError
from rollout.inference.profile import Profile
from rollout.inference.watchdog import HANG_S

# Quicker than the way to a thread and back, where the result waits for the interpreter to be free.
INLINE_BELOW_S = 0.001
# How often those who wait are looked after while a batch runs in a thread.
SWEEP_EVERY_S = 0.05
# How much of each batch's time, against what was measured at load, goes into the estimate of the next.
SMOOTHING = 0.1
# A batch that takes so many times what a full one took at load will not end.
HANGS_AFTER = 20
LARGEST_SLOWDOWN = 10.0  # a stall of the machine is not the price of a batch

Result = TypeVar("Result")
Left = Literal["idle", "full", "freed"]


class Ran(NamedTuple, Generic[Result]):
    """What became of the rows of one request.

    Attributes:
        results: For each row its result, or its error.
        waited: Seconds until the first of them was in a batch.
        ran: Seconds that their batches took.
    """

    results: list[Result | RolloutError]
    waited: float
    ran: float


class BatchReport(NamedTuple):
    """What is counted of a batch.

    Attributes:
        rows: How many rows it had.
        waited: Seconds that its oldest row waited.
        left: Why it left: the runtime was idle, the batch was full, or the runtime became free.
    """

    rows: int
    waited: float
    left: Left


class _Request:
    """The rows of one caller, who is answered when the last of them is done."""

    __slots__ = ("arrays", "deadline", "future", "pending", "ran", "results", "since", "waited")

    def __init__(self, arrays: Arrays, rows: int, deadline: float, future: asyncio.Future[Ran[Any]]) -> None:
        self.arrays = arrays
        self.deadline = deadline
        self.future = future
        self.results: list[Any] = [None] * rows
        self.pending = rows
        self.since = time.monotonic()
        self.waited = self.ran = 0.0

    def settle(self, start: int, results: Sequence[Any], ran: float) -> None:
        self.results[start : start + len(results)] = results
        self.pending -= len(results)
        self.ran += ran
        if not self.pending:
            self._answer()

    def expire(self) -> None:
        late = DeadlineExceededError(
            "the deadline passed before the row was scored", headers={"Retry-After": "1"}
        )
        self.results = [late if result is None else result for result in self.results]
        self._answer()

    def _answer(self) -> None:
        if not self.future.done():
            self.future.set_result(Ran(self.results, self.waited, self.ran))


class _Block(NamedTuple):
    """Rows of a request that stay together."""

    request: _Request
    start: int
    stop: int


class Batcher(Generic[Result]):
    """Runs rows of many callers together.

    An idle batcher dispatches as soon as the event loop has taken in what had already arrived; while a batch
    runs, the next one collects. There is no window to wait out. A batch that is quick runs on the event loop.

    Args:
        run: Scores a batch: for each row a result, or the error of that row alone.
        profile: What batches cost.
        longest_wait: Seconds of work that may wait; what comes on top is refused.
        executor: Runs the batches that are not quick.
        on_batch: Called with what is to be counted of a batch.
        hang_s: A batch may take this long, in seconds, or many times what it took at load.

    Attributes:
        inline: Whether a quick batch runs on the event loop. One that would never end must not.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Sequence[Result | RolloutError]],
        profile: Profile,
        *,
        longest_wait: float,
        executor: Executor,
        on_batch: Callable[[BatchReport], None] = lambda _: None,
        hang_s: float = HANG_S,
    ) -> None:
        self._run = run
        self._profile = profile
        self._longest_wait = longest_wait
        self._executor = executor
        self._on_batch = on_batch
        self._hang_s = hang_s
        self._queue: deque[_Block] = deque()
        self._waiting_rows = 0
        self._slowdown = 1.0
        self._scheduled = False
        self._running: dict[asyncio.Future[Any], tuple[float, list[_Block]]] = {}
        self._freed = False
        self._sweeper: asyncio.TimerHandle | None = None
        self.inline = True

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._queue and not self._running

    @property
    def is_waited_for(self) -> bool:
        """Whether rows wait for a batch."""
        return bool(self._queue)

    @property
    def waiting_seconds(self) -> float:
        """How long the rows that wait now will take."""
        return self._waiting_rows / self._profile.rate * self._slowdown

    def hangs(self) -> bool:
        """Whether a batch takes so long that it will not end; may be asked from any thread."""
        since = min((since for since, _ in tuple(self._running.values())), default=math.inf)
        return time.monotonic() - since > max(self._hang_s, HANGS_AFTER * self._profile.seconds[-1])

    def submit(self, arrays: Arrays, deadline: float) -> asyncio.Future[Ran[Result]]:
        """Queues the rows of one caller.

        Args:
            arrays: For each field an array of shape ``(rows, *field.shape)``.
            deadline: ``time.monotonic()`` after which nobody waits for the answer.

        Raises:
            OverloadedError: If too much work waits already.
            DeadlineExceededError: If the rows would not be scored before their deadline.
        """
        loop = asyncio.get_running_loop()
        request = _Request(arrays, count(arrays), deadline, loop.create_future())
        if self._queue:
            self._require_room()
        if request.pending > 1 or self._queue:
            self._require_time(request)
        largest = self._profile.max_batch
        for start in range(0, request.pending, largest):
            self._queue.append(_Block(request, start, min(start + largest, request.pending)))
        self._waiting_rows += request.pending
        self._schedule()
        return request.future

    def _require_room(self) -> None:
        if self.waiting_seconds > self._longest_wait:
            raise OverloadedError(
                f"{self._waiting_rows} rows are waiting already; try again shortly",
                headers={"Retry-After": str(math.ceil(self.waiting_seconds))},
            )

    def seconds_for(self, rows: int) -> float:
        """Estimates how long so many more rows would take from now."""
        running = self._profile.seconds[-1] if self._running else 0.0
        return self.waiting_seconds + (running + rows / self._profile.rate) * self._slowdown

    def _require_time(self, request: _Request) -> None:
        takes = self.seconds_for(request.pending)
        if request.since + takes > request.deadline:
            raise DeadlineExceededError(
                f"{request.pending} rows would take about {takes:.2g} s from now: send fewer at a time, or give "
                "them more time with the header X-Request-Timeout",
                headers={"Retry-After": str(math.ceil(takes))},
            )

    def _schedule(self) -> None:
        if not self._scheduled and len(self._running) < self._profile.in_flight:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        batch = self._take()
        if not batch:
            self._freed = False
            return
        arrays = _merge(batch)
        rows = count(arrays)
        loop = asyncio.get_running_loop()
        if self.inline and self._profile.seconds[rows] < INLINE_BELOW_S:
            self._settle(batch, *self.run(arrays))
            self._freed = True
        else:
            running = loop.run_in_executor(self._executor, self.run, arrays)
            if self._sweeper is None:
                self._sweeper = loop.call_later(SWEEP_EVERY_S, self._sweep)
            self._running[running] = time.monotonic(), batch
            running.add_done_callback(self._finish)
        self._schedule()

    def _take(self) -> list[_Block]:
        """Takes the next batch off the queue, without rows that nobody waits for or that cannot make it."""
        now = time.monotonic()
        done = now + self._profile.seconds[min(self._waiting_rows, self._profile.max_batch)] * self._slowdown
        batch: list[_Block] = []
        rows = 0
        while self._queue:
            request, start, stop = block = self._queue[0]
            if rows + stop - start > self._profile.max_batch:
                break
            self._queue.popleft()
            self._waiting_rows -= stop - start
            if request.future.done():
                continue
            if done > request.deadline:
                request.expire()
                continue
            if not start:
                request.waited = now - request.since
            batch.append(block)
            rows += stop - start
        if batch:
            left: Left = "full" if self._queue else "freed" if self._freed else "idle"
            self._on_batch(BatchReport(rows, now - batch[0].request.since, left))
        return batch

    def _finish(self, done: asyncio.Future[tuple[list[Result | RolloutError], float]]) -> None:
        _, batch = self._running.pop(done)
        self._settle(batch, *done.result())
        self._freed = True
        self._schedule()

    def _settle(self, batch: list[_Block], results: list[Result | RolloutError], ran: float) -> None:
        slowdown = min(ran / self._profile.seconds[len(results)], LARGEST_SLOWDOWN)
        self._slowdown += SMOOTHING * (slowdown - self._slowdown)
        at = 0
        for request, start, stop in batch:
            request.settle(start, results[at : at + stop - start], ran)
            at += stop - start

    def _sweep(self) -> None:
        """Answers those whose deadline passes while a batch runs: a runtime that hangs keeps nobody waiting."""
        now = time.monotonic()
        for _, batch in self._running.values():
            for block in batch:
                if block.request.deadline < now:
                    block.request.expire()
        for block in self._queue:
            if block.request.deadline < now:
                block.request.expire()
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(SWEEP_EVERY_S, self._sweep) if self._running else None

    def run(self, arrays: Arrays) -> tuple[list[Result | RolloutError], float]:
        """Runs a batch now, in the thread that asks.

        Returns:
            For each row a result or its error; and the seconds that it took.
        """
        start = time.perf_counter()
        results = self._run_or_bisect(arrays)
        return results, time.perf_counter() - start

    def _run_or_bisect(self, arrays: Arrays) -> list[Result | RolloutError]:
        """Runs a batch; if it fails, runs its halves, so that the row at fault is found and fails alone."""
        rows = count(arrays)
        try:
            results = self._run(arrays)
            if len(results) != rows:
                raise ValueError(f"{len(results)} results for {rows} rows")
            return list(results)
        except Exception as error:
            if rows == 1:
                return [PredictionFailedError(f"the model failed on this input: {error}")]
            middle = rows // 2
            halves = take(arrays, slice(0, middle)), take(arrays, slice(middle, rows))
            return [result for half in halves for result in self._run_or_bisect(half)]


def _merge(batch: list[_Block]) -> Arrays:
    parts = [
        request.arrays if stop - start == len(request.results) else take(request.arrays, slice(start, stop))
        for request, start, stop in batch
    ]
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
