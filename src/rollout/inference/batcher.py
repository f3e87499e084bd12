"""The micro-batcher: dispatches at once when idle, and collects only while the runtime is busy."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from rollout.errors import DeadlineExceededError, OverloadedError, PredictionFailedError, RolloutError


class Deadlined(Protocol):
    """Something to be batched."""

    @property
    def deadline(self) -> float:
        """``time.monotonic()`` after which nobody waits for the answer."""
        ...


Item = TypeVar("Item", bound=Deadlined)
Result = TypeVar("Result")


class _Group(Generic[Result]):
    """The items of one caller, who is answered when the last of them is done."""

    __slots__ = ("future", "outcomes", "pending")

    def __init__(self, size: int, future: asyncio.Future[list[Any]]) -> None:
        self.future = future
        self.outcomes: list[Any] = [None] * size
        self.pending = size

    def settle(self, position: int, outcome: Any) -> None:
        self.outcomes[position] = outcome
        self.pending -= 1
        if not self.pending and not self.future.done():
            self.future.set_result(self.outcomes)

    def expire(self) -> None:
        if not self.future.done():
            self.future.set_result([_late() if outcome is None else outcome for outcome in self.outcomes])


class _Waiting(NamedTuple):
    item: Any
    group: _Group[Any]
    position: int
    since: float


class Batcher(Generic[Item, Result]):
    """Runs items of many callers together.

    An idle batcher dispatches as soon as the event loop has taken in what had already arrived; while a batch
    runs, the next one collects. There is no window to wait out.

    Args:
        run: Scores a batch: for each item a result, or the error of that item alone.
        max_batch: Most items of a batch.
        max_queue: Most items that wait; further ones are refused.
        executor: Runs the batches off the event loop; ``None`` runs them on it, for those quicker than the way
            to a thread and back.
        on_batch: Called with each batch's size and the seconds that its oldest item waited.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result | RolloutError]],
        *,
        max_batch: int,
        max_queue: int,
        executor: Executor | None = None,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._executor = executor
        self._on_batch = on_batch
        self._queue: deque[_Waiting] = deque()
        self._busy = False

    def submit(self, items: Sequence[Item]) -> asyncio.Future[list[Result | RolloutError]]:
        """Queues the items of one caller.

        Returns:
            A future of the outcomes, in the order of the items.

        Raises:
            OverloadedError: If the queue has no room for all of them.
        """
        if len(self._queue) + len(items) > self._max_queue:
            raise OverloadedError(
                f"{len(self._queue)} rows are waiting already; try again shortly",
                headers={"Retry-After": "1"},
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Result | RolloutError]] = loop.create_future()
        group: _Group[Result] = _Group(len(items), future)
        now = time.monotonic()
        self._queue.extend(_Waiting(item, group, position, now) for position, item in enumerate(items))
        if self._executor is not None:
            # A runtime that hangs in its thread keeps nobody waiting beyond the deadline.
            timer = loop.call_later(max(item.deadline for item in items) - now, group.expire)
            future.add_done_callback(lambda _: timer.cancel())
        if not self._busy:
            self._busy = True
            loop.call_soon(self._dispatch)
        return future

    def _dispatch(self) -> None:
        batch = self._take()
        if not batch:
            self._busy = False
            return
        items = [waiting.item for waiting in batch]
        loop = asyncio.get_running_loop()
        if self._executor is None:
            self._settle(batch, self._run_or_bisect(items))
            loop.call_soon(self._dispatch)
        else:
            running = loop.run_in_executor(self._executor, self._run_or_bisect, items)
            running.add_done_callback(lambda done: self._finish(batch, done))

    def _take(self) -> list[_Waiting]:
        """Takes the next batch off the queue, leaving out those whose caller no longer waits."""
        now = time.monotonic()
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._max_batch:
            waiting = self._queue.popleft()
            if waiting.group.future.done():
                continue
            if waiting.item.deadline < now:
                waiting.group.settle(waiting.position, _late())
            else:
                batch.append(waiting)
        if batch and self._on_batch is not None:
            self._on_batch(len(batch), now - batch[0].since)
        return batch

    def _finish(self, batch: list[_Waiting], done: asyncio.Future[list[Result | RolloutError]]) -> None:
        self._settle(batch, done.result())
        self._dispatch()

    def _settle(self, batch: list[_Waiting], outcomes: Sequence[Result | RolloutError]) -> None:
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.group.settle(waiting.position, outcome)

    def _run_or_bisect(self, items: Sequence[Item]) -> list[Result | RolloutError]:
        """Runs a batch; if it fails, runs its halves, so that the item at fault is found and fails alone."""
        try:
            outcomes = self._run(items)
            if len(outcomes) != len(items):
                raise ValueError(f"{len(outcomes)} results for {len(items)} rows")
            return list(outcomes)
        except Exception as error:
            if len(items) == 1:
                return [PredictionFailedError(f"the model failed on this input: {error}")]
            middle = len(items) // 2
            return self._run_or_bisect(items[:middle]) + self._run_or_bisect(items[middle:])


def _late() -> DeadlineExceededError:
    return DeadlineExceededError("the deadline passed before the row was scored", headers={"Retry-After": "1"})
