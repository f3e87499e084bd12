"""The shadow: the challenger scores a sample of the others' requests, after they were answered and unseen."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rollout.bundle.columns import sizes
from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays
from rollout.inference.batcher import HANGS_AFTER
from rollout.inference.decisions import Decisions
from rollout.inference.load import NOTHING, Load
from rollout.inference.reviewing import Other, Pick, identify, review_items
from rollout.inference.rows import Answers, Rows
from rollout.inference.served_model import ServedModel
from rollout.inference.snapshot import ServingSnapshot
from rollout.inference.version import LoadedVersion
from rollout.inference.watchdog import HANG_S
from rollout.review.item import ReviewItem, item_id
from rollout.routing.assignment import position

# Rows are gathered so long, in seconds, before a batch of them runs: together they cost less.
GATHER_S = 0.5
# For so long those that are being answered come first; then they come first only where rows wait.
PATIENCE_S = 0.05
LATEST_S = 2.0
MOST_ROWS = 2048
MOST_BYTES = 64 * 1024 * 1024

logger = logging.getLogger(__name__)


class _Unseen(NamedTuple):
    """A row that was answered, and what became of it."""

    rows: Rows
    answers: Answers
    row: int
    pi: float
    since: float
    size: int
    load: Load

    @property
    def arrays(self) -> Arrays:
        return take(self.rows.arrays, slice(self.row, self.row + 1))


class Shadow:
    """Scores rows unseen, when there is nothing better to do, and drops them when there is too much.

    Args:
        model: The model.
        answering: Says how many requests are being answered.
        add: Takes a review item where the two disagree.
        keep: Takes what the challenger made of a row that is in review for another reason.
    """

    def __init__(
        self,
        model: ServedModel,
        answering: Callable[[], int],
        add: Callable[[ReviewItem], Awaitable[object]],
        keep: Callable[[ReviewItem], Awaitable[object]],
    ) -> None:
        self._model = model
        self._answering = answering
        self._add = add
        self._keep = keep
        self._queue: deque[tuple[ServingSnapshot, _Unseen]] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._executor = self._make_executor()
        self._task = asyncio.get_running_loop().create_task(self._run())
        # The last batch of each challenger, which it may hang in.
        self._batches: dict[LoadedVersion, Future[Any]] = {}

    @property
    def is_running(self) -> bool:
        """Whether a batch runs."""
        return not all(batch.done() for batch in self._batches.values())

    def close(self) -> None:
        """Drops what waits."""
        self._task.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def offer(self, snapshot: ServingSnapshot, rows: Rows, answers: Answers) -> None:
        """Takes those rows of an answered request that the hash picks and the challenger has not seen."""
        split = snapshot.split
        now = time.monotonic()
        pi = _picked(split.shadow)
        size = sum(array.nbytes for array in rows.arrays.values()) // len(answers.decisions)
        held = sizes(rows.arrays).tolist()
        for index, assignment in enumerate(answers.assignments):
            if assignment.arm == "challenger" or not self._is_picked(split.experiment, split.shadow, rows, index):
                continue
            load = Load(1, tuple(held[index]), sum(held[index]))
            own = size + load.held
            if len(self._queue) >= MOST_ROWS or self._bytes + own > MOST_BYTES:
                snapshot.counts[assignment.arm].shadow["dropped"].inc()
                continue
            self._queue.append((snapshot, _Unseen(rows, answers, index, pi, now, own, load)))
            self._bytes += own
        self._arrived.set()

    def _is_picked(self, experiment: str, rate: float, rows: Rows, index: int) -> bool:
        """Decides by a hash of the prediction's identity: a repeated request is picked again, or never."""
        if rate >= 1:
            return True
        identity = item_id(rows.client_ids[index], rows.keys[index], msgspec.json.encode(rows.sent[index]))
        return position(f"{experiment}:shadow", identity) < rate

    async def _run(self) -> None:
        while True:
            self._arrived.clear()
            await self._arrived.wait()
            await asyncio.sleep(GATHER_S)
            while self._queue:
                await self._give_way()
                try:
                    if self._queue:
                        await self._score(*self._next_batch())
                except Exception:
                    logger.exception("the shadow of %s failed", self._model.name)

    async def _give_way(self) -> None:
        since = time.monotonic()
        while self._queue and (
            self._queue[0][0].is_busy or (self._answering() and time.monotonic() < since + PATIENCE_S)
        ):
            await asyncio.sleep(0.002)
            self._drop_late()

    def _drop_late(self) -> None:
        oldest = time.monotonic() - LATEST_S
        while self._queue and self._queue[0][1].since < oldest:
            snapshot, unseen = self._pop()
            snapshot.counts[unseen.answers.assignments[unseen.row].arm].shadow["dropped"].inc()

    def _pop(self) -> tuple[ServingSnapshot, _Unseen]:
        snapshot, unseen = self._queue.popleft()
        self._bytes -= unseen.size
        return snapshot, unseen

    def _next_batch(self) -> tuple[ServingSnapshot, list[_Unseen]]:
        """Takes rows that were answered under one revision, a batch at most."""
        snapshot = self._queue[0][0]
        assert snapshot.challenger is not None  # noqa: S101  nothing is offered without one
        batch: list[_Unseen] = []
        load = NOTHING
        while self._queue and self._queue[0][0] is snapshot:
            load = load.beside(self._queue[0][1].load)
            if batch and not snapshot.challenger.profile.takes(load):
                break
            batch.append(self._pop()[1])
        return snapshot, batch

    async def _score(self, snapshot: ServingSnapshot, batch: list[_Unseen]) -> None:
        challenger = snapshot.challenger
        if challenger is None or snapshot.split.challenger != self._model.split.challenger:
            return  # the trial is over
        parts = [unseen.arrays for unseen in batch]
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        hangs = challenger in self._batches and not self._batches[challenger].done()
        found = None if hangs else await self._run_batch(challenger, arrays)
        if found is None:
            for unseen in batch:
                counts = snapshot.counts[unseen.answers.assignments[unseen.row].arm]
                counts.shadow["dropped" if hangs else "failed"].inc()
            return
        decided, seconds = found
        errors = decided.errors
        decided = decided.translated(snapshot.translations.get(challenger.version))
        for at, unseen in enumerate(batch):
            counts = snapshot.counts[unseen.answers.assignments[unseen.row].arm]
            counts.shadow_seconds.observe(seconds)
            if at in errors:
                counts.shadow["failed"].inc()
                continue
            theirs, ours = decided.row(at), unseen.answers.decisions.row(unseen.row)
            counts.distance.observe(snapshot.task.distance(ours.numbers, theirs.numbers))
            if snapshot.task.agree(ours.numbers, theirs.numbers):
                counts.shadow["agreed"].inc()
            else:
                counts.shadow["disagreed"].inc()
                await self._disagree(unseen, Other(challenger.version, theirs))

    async def _run_batch(self, challenger: LoadedVersion, arrays: Arrays) -> tuple[Decisions, float] | None:
        """Runs a batch in the thread; one that hangs keeps that thread, and others get a new one."""
        running = self._executor.submit(challenger.batcher.run, arrays)
        self._batches = {one: batch for one, batch in self._batches.items() if not batch.done()}
        self._batches[challenger] = running
        future = asyncio.wrap_future(running)
        await asyncio.wait([future], timeout=max(HANG_S, HANGS_AFTER * challenger.profile.slowest))
        if future.done():
            return future.result()
        future.cancel()
        logger.error("%s hangs; it scores nothing unseen until it comes back", challenger.manifest.tag)
        self._executor.shutdown(wait=False)
        self._executor = self._make_executor()
        return None

    def _make_executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix=f"{self._model.name}-shadow")

    async def _disagree(self, unseen: _Unseen, other: Other) -> None:
        """Offers a row to the review queue; where it is there for another reason, only the answer is kept."""
        rows, answers, row = unseen.rows, unseen.answers, unseen.row
        if row in answers.fates:
            picks = [Pick(row, "disagreement", unseen.pi)]
            await self._keep((await review_items(self._model, rows, answers, picks, other))[row])
            return
        pi = self._model.sampler.sample("disagreement", unseen.pi, identify(rows, row))
        if pi is not None:
            picks = [Pick(row, "disagreement", pi)]
            items = await review_items(self._model, rows, answers, picks, other)
            await self._add(items[row])


def _picked(rate: float) -> float:
    """Returns the share of the 10,000 positions of a hash that lie below a rate."""
    whole = round(rate * 10_000)
    return (whole + (whole / 10_000 < rate)) / 10_000
