"""The micro-batcher: dispatches at once when idle, and collects only while the runtime is busy."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Literal, NamedTuple

import numpy as np

from rollout.bundle.columns import is_ragged
from rollout.bundle.parity import count, take
from rollout.bundle.schema import Arrays
from rollout.errors import DeadlineExceededError, OverloadedError, PredictionFailedError, RolloutError
from rollout.inference.decisions import Decisions, run_or_bisect
from rollout.inference.load import NOTHING, Load, loads
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
SAY_EVERY_S = 1.0
# After a batch in a thread that kept the event loop waiting for too long, none does for so many seconds.
REST_S = 0.1
LARGEST_SLOWDOWN = 10.0  # a stall of the machine is not the price of a batch

logger = logging.getLogger(__name__)

Left = Literal["idle", "full", "freed"]


class Ran(NamedTuple):
    """What became of the rows of one request.

    Attributes:
        decisions: Of each row, or its error.
        waited: Seconds until the first of them was in a batch.
        ran: Seconds that their batches took.
    """

    decisions: Decisions
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

    __slots__ = ("arrays", "deadline", "done", "future", "order", "pending", "ran", "rows", "since", "waited")

    def __init__(
        self,
        arrays: Arrays,
        rows: int,
        deadline: float,
        future: asyncio.Future[Ran],
        order: Sequence[int] | None,
    ) -> None:
        # Where rows have lengths of their own, they are run from short to long.
        self.order = range(rows) if order is None else order
        self.arrays = arrays if order is None else take(arrays, np.array(order))
        self.deadline = deadline
        self.future = future
        self.rows = self.pending = rows
        self.done: list[tuple[Sequence[int], Decisions]] = []
        self.since = time.monotonic()
        self.waited = self.ran = 0.0

    def settle(self, start: int, decisions: Decisions, ran: float) -> None:
        self.done.append((self.order[start : start + len(decisions)], decisions))
        self.pending -= len(decisions)
        self.ran += ran
        if not self.pending and not self.future.done():
            is_whole = len(self.done) == 1 and isinstance(self.order, range)
            whole = decisions if is_whole else Decisions.placed(self.done, self.rows)
            self.future.set_result(Ran(whole, self.waited, self.ran))

    def expire(self) -> None:
        if self.future.done():
            return
        late = DeadlineExceededError(
            "the deadline passed before the row was scored", headers={"Retry-After": "1"}
        )
        unscored = range(self.rows), Decisions.failed(self.rows, late)
        self.future.set_result(Ran(Decisions.placed([unscored, *self.done], self.rows), self.waited, self.ran))


class _Block(NamedTuple):
    """Rows of a request that stay together."""

    request: _Request
    start: int
    stop: int
    load: Load


class Begun(NamedTuple):
    """Rows of one caller that run in a thread; the caller looks for them in the same turn of the event loop."""

    request: _Request
    running: Future[tuple[Decisions, float]]


class Batcher:
    """Runs rows of many callers together.

    An idle batcher dispatches as soon as the event loop has taken in what had already arrived; while a batch
    runs, the next one collects. There is no window to wait out. A batch that is quick runs on the event loop.
    Where rows differ in length, a batch is led by the one that waits longest and takes those that fit it; see
    ``load``.

    Args:
        run: Scores a batch and decides on it: on each row, or with the error of that row alone.
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
        run: Callable[[Arrays], Decisions],
        profile: Profile,
        *,
        longest_wait: float,
        executor: Executor,
        on_batch: Callable[[BatchReport], None] = lambda _: None,
        hang_s: float = HANG_S,
    ) -> None:
        self._run = run
        self._profile = profile
        self._most_quick = bisect_left(profile.seconds, INLINE_BELOW_S) - 1
        self._longest_wait = longest_wait
        self._executor = executor
        self._on_batch = on_batch
        self._hang_s = hang_s
        self._queue: deque[_Block] = deque()
        self._waiting_rows = 0
        self._waiting_cost = 0.0
        self._slowdown = 1.0
        self._said = self._rests_until = -math.inf
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
    def quick_rows(self) -> int:
        """How many rows a batch may have that keeps nobody waiting; 0 while others wait for more than a batch."""
        if (self.inline and self._running) or self._waiting_rows > self._profile.max_batch:
            return 0
        return self._most_quick

    @property
    def is_waited_for(self) -> bool:
        """Whether rows wait for a batch."""
        return bool(self._queue)

    @property
    def waiting_seconds(self) -> float:
        """How long the rows that wait now will take."""
        return self._waiting_cost / self._profile.rate * self._slowdown

    def hangs(self) -> bool:
        """Whether a batch takes so long that it will not end; may be asked from any thread."""
        since = min((since for since, _ in tuple(self._running.values())), default=math.inf)
        return time.monotonic() - since > max(self._hang_s, HANGS_AFTER * self._profile.slowest)

    def run_at_once(self, arrays: Arrays, deadline: float) -> Ran | None:
        """Runs rows now, on the event loop, where they are quick and nothing else waits; otherwise ``None``.

        Args:
            arrays: For each field an array of shape ``(rows, *field.shape)``, or a ragged column.
            deadline: ``time.monotonic()`` after which nobody waits for the answer.
        """
        if not self.inline or not self._is_quick(arrays, deadline):
            return None
        rows = count(arrays)
        decisions, ran = self.run(arrays)
        self._learn(ran / self._profile.seconds[rows])
        self._on_batch(BatchReport(rows, 0.0, "idle"))
        return Ran(decisions, 0.0, ran)

    def begin(self, arrays: Arrays, deadline: float) -> Begun | None:
        """Runs rows now, in a thread, where they are quick and nothing else waits or runs; otherwise ``None``.

        Args:
            arrays: For each field an array of shape ``(rows, *field.shape)``, or a ragged column.
            deadline: ``time.monotonic()`` after which nobody waits for the answer.
        """
        if self._running or time.monotonic() < self._rests_until or not self._is_quick(arrays, deadline):
            return None
        future: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()
        request = _Request(arrays, count(arrays), deadline, future, None)
        self._on_batch(BatchReport(request.rows, 0.0, "idle"))
        return Begun(request, self._executor.submit(self.run, arrays))

    def end(self, begun: Begun) -> asyncio.Future[Ran]:
        """Waits for rows as long as a quick batch may take on the event loop, and no longer.

        Returns:
            What became of them; where they take longer, it comes later.
        """
        request, running = begun
        try:
            decisions, ran = running.result(INLINE_BELOW_S)
        except TimeoutError:
            self._rests_until = time.monotonic() + REST_S
            block = _Block(request, 0, request.rows, Load(request.rows))
            self._wait_for(asyncio.wrap_future(running), [block])
        else:
            self._learn(ran / self._profile.seconds[request.rows])
            request.settle(0, decisions, ran)
        return request.future

    def _is_quick(self, arrays: Arrays, deadline: float) -> bool:
        """Whether rows may run now, and keep nobody waiting."""
        rows = count(arrays)
        if self._queue or rows > self.quick_rows or any(map(is_ragged, arrays.values())):
            return False
        return time.monotonic() + self._profile.seconds[rows] * self._slowdown <= deadline

    def submit(self, arrays: Arrays, deadline: float) -> asyncio.Future[Ran]:
        """Queues the rows of one caller.

        Args:
            arrays: For each field an array of shape ``(rows, *field.shape)``, or a ragged column.
            deadline: ``time.monotonic()`` after which nobody waits for the answer.

        Raises:
            OverloadedError: If too much work waits already.
            DeadlineExceededError: If the rows would not be scored before their deadline.
        """
        loop = asyncio.get_running_loop()
        order, rows = loads(arrays)
        request = _Request(arrays, count(arrays), deadline, loop.create_future(), order)
        if self._queue:
            self._require_room()
        blocks = list(self._cut(request, rows))
        cost = sum(self._profile.weigh(block.load) for block in blocks)
        if request.pending > 1 or self._queue:
            self._require_time(request, cost)
        self._queue.extend(blocks)
        self._waiting_rows += request.pending
        self._waiting_cost += cost
        self._schedule()
        return request.future

    def _cut(self, request: _Request, rows: Sequence[Load]) -> Iterator[_Block]:
        """Cuts the rows of a request into blocks that may be a batch each."""
        if not rows:
            largest = self._profile.max_batch
            for start in range(0, request.rows, largest):
                stop = min(start + largest, request.rows)
                yield _Block(request, start, stop, Load(stop - start))
            return
        start, load = 0, NOTHING
        for place, row in enumerate(rows):
            wider = load.beside(row)
            if load.rows and not self._profile.takes(wider):
                yield _Block(request, start, place, load)
                start, wider = place, row
            load = wider
        yield _Block(request, start, request.rows, load)

    def _require_room(self) -> None:
        if self.waiting_seconds > self._longest_wait:
            raise OverloadedError(
                f"{self._waiting_rows} rows are waiting already; try again shortly",
                headers={"Retry-After": str(math.ceil(self.waiting_seconds))},
            )

    def seconds_for(self, rows: float) -> float:
        """Estimates how long so many more rows would take from now, where they differ in length typical ones."""
        running = self._profile.seconds[-1] if self._running else 0.0
        return self.waiting_seconds + (running + rows / self._profile.rate) * self._slowdown

    def _require_time(self, request: _Request, cost: float) -> None:
        takes = self.seconds_for(cost)
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
        if self.inline and self._profile.estimate(_load(batch)) < INLINE_BELOW_S:
            self._settle(batch, *self.run(arrays))
            self._freed = True
        else:
            self._wait_for(asyncio.get_running_loop().run_in_executor(self._executor, self.run, arrays), batch)
        self._schedule()

    def _wait_for(self, running: asyncio.Future[tuple[Decisions, float]], batch: list[_Block]) -> None:
        """Answers the callers of a batch that runs in a thread once it is done, or too late."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_EVERY_S, self._sweep)
        self._running[running] = time.monotonic(), batch
        running.add_done_callback(self._finish)

    def _take(self) -> list[_Block]:
        """Takes the next batch off the queue, without rows that nobody waits for or that cannot make it."""
        now = time.monotonic()
        done = now + self._profile.seconds[min(self._waiting_rows, self._profile.max_batch)] * self._slowdown
        batch: list[_Block] = []
        passed_over: list[_Block] = []
        load = NOTHING
        while self._queue and load.rows < self._profile.max_batch:
            request, start, stop, own = block = self._queue.popleft()
            wider = load.beside(own)
            # What waits longest always goes; others whose lengths do not fit it lead a batch of theirs later.
            if batch and not self._profile.takes(wider):
                passed_over.append(block)
                if not own.longest:
                    break
                continue
            self._waiting_rows -= stop - start
            self._waiting_cost -= self._profile.weigh(own)
            if request.future.done():
                continue
            if max(done, now + self._profile.estimate(own) * self._slowdown) > request.deadline:
                request.expire()
                continue
            if not start:
                request.waited = now - request.since
            batch.append(block)
            load = wider
        self._queue.extendleft(reversed(passed_over))
        if not self._queue:
            self._waiting_cost = 0.0  # sums of floats drift
        if batch:
            left: Left = "full" if self._queue else "freed" if self._freed else "idle"
            self._on_batch(BatchReport(load.rows, now - batch[0].request.since, left))
        return batch

    def _finish(self, done: asyncio.Future[tuple[Decisions, float]]) -> None:
        _, batch = self._running.pop(done)
        self._settle(batch, *done.result())
        self._freed = True
        self._schedule()

    def _settle(self, batch: list[_Block], decisions: Decisions, ran: float) -> None:
        self._learn(ran / self._profile.estimate(_load(batch)))
        at = 0
        for request, start, stop, _ in batch:
            request.settle(start, decisions.part(at, at + stop - start), ran)
            at += stop - start

    def _learn(self, slowdown: float) -> None:
        """Takes how many times what it took at load a batch took."""
        self._slowdown += SMOOTHING * (min(slowdown, LARGEST_SLOWDOWN) - self._slowdown)

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

    def run(self, arrays: Arrays) -> tuple[Decisions, float]:
        """Runs a batch now, in the thread that asks.

        Returns:
            What was decided; and the seconds that it took.
        """
        start = time.perf_counter()
        decisions = run_or_bisect(self._run, arrays, self._fault)
        return decisions, time.perf_counter() - start

    def _fault(self, error: Exception) -> RolloutError:
        """Says why a row failed; to the log once a second at most: such a row may come again and again."""
        if isinstance(error, OverloadedError):
            return error
        if (now := time.monotonic()) > self._said + SAY_EVERY_S:
            self._said = now
            logger.error("a model failed on a row: %s", error)
        return PredictionFailedError("the model failed on this input: the log of the service says why")


def _load(batch: list[_Block]) -> Load:
    load = NOTHING
    for block in batch:
        load = load.beside(block.load)
    return load


def _merge(batch: list[_Block]) -> Arrays:
    parts = [
        request.arrays if stop - start == request.rows else take(request.arrays, slice(start, stop))
        for request, start, stop, _ in batch
    ]
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
