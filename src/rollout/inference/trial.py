"""A challenger on trial: it is asked first, and where it fails its clients get the champion's answer in time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from rollout.bundle.parity import count, take
from rollout.bundle.schema import Arrays
from rollout.config import Settings
from rollout.errors import DeadlineExceededError, OverloadedError, PredictionFailedError, RolloutError
from rollout.inference.batcher import Begun, Ran
from rollout.inference.breaker import Breaker
from rollout.inference.decisions import Decisions
from rollout.inference.rows import Fallback, spans
from rollout.inference.version import LoadedVersion
from rollout.routing.traffic import BreakerState

# What the champion would take by estimate, so many times, is left for it of a request's time,
RESERVE = 3
# and at least and at most these shares of it.
LEAST_RESERVE, LARGEST_RESERVE = 0.25, 0.5
# A caller who gives less than this share of the usual deadline is in a hurry: that it was not met says nothing.
HURRY = 0.1
PROBE_S = 1.0

logger = logging.getLogger(__name__)


class TrialResult(NamedTuple):
    """What became of the rows of a request.

    Attributes:
        decisions: On each row, or an error that both versions made.
        fallbacks: The rows that the champion answered, by index, and why.
        late: The rows that prove nothing: they were spared the challenger, or it was late.
        waited: Seconds until the first of them was in a batch.
        ran: Seconds that their batches took.
    """

    decisions: Decisions
    fallbacks: dict[int, Fallback]
    late: Collection[int]
    waited: float
    ran: float

    @property
    def failures(self) -> int:
        """Rows that the challenger was asked and failed to score, and the champion did."""
        return sum(why != "breaker" for why in self.fallbacks.values())

    def evidence(self, start: int, stop: int) -> tuple[int, bool]:
        """Returns how many of the rows of a request the challenger attempted in time, and whether it failed."""
        attempts = sum(row not in self.late for row in range(start, stop))
        return attempts, any(self.fallbacks.get(row) == "error" for row in range(start, stop))


class Trial:
    """Scores rows with the challenger, and with the champion what the challenger cannot score.

    Args:
        champion: Answers where the challenger fails.
        challenger: Is asked first, unless its breaker is open.
        settings: How often it may fail.
    """

    def __init__(self, champion: LoadedVersion, challenger: LoadedVersion, settings: Settings) -> None:
        self.champion = champion
        self.challenger = challenger
        self._hurry_s = HURRY * settings.timeout_ms / 1000
        self.breaker = Breaker(settings.breaker_rate, settings.breaker_window_s, self._report)
        self._probe: asyncio.Task[None] | None = None

    def begin(self, arrays: Arrays, deadline: float) -> Begun | None:
        """Has the challenger score rows now, where it is quick and nothing waits for it; otherwise ``None``."""
        return self.challenger.batcher.begin(arrays, deadline) if self.breaker.state == "closed" else None

    def end(self, begun: Begun, sizes: Sequence[int]) -> TrialResult | asyncio.Future[Ran]:
        """Returns what the challenger made of rows; where it is late or failed, what ``score`` goes on with.

        Args:
            begun: The rows.
            sizes: The rows of each request.
        """
        asked = self.challenger.batcher.end(begun)
        if not asked.done() or asked.result().decisions.errors:
            return asked
        return self._without_fault(asked.result(), sizes)

    async def score(
        self, arrays: Arrays, deadline: float, sizes: Sequence[int], asked: asyncio.Future[Ran] | None = None
    ) -> TrialResult:
        """Scores the rows of a request, or of several.

        Args:
            arrays: For each field an array of shape ``(rows, *field.shape)``.
            deadline: ``time.monotonic()`` after which nobody waits for the answer.
            sizes: The rows of each request.
            asked: What the challenger makes of them, if it is at work already.

        Raises:
            OverloadedError: If the champion has too much to do as well.
            DeadlineExceededError: If the champion cannot make it either.
        """
        rows = count(arrays)
        in_hurry = deadline - time.monotonic() < self._hurry_s
        if asked is None and self.breaker.state != "closed":
            self._offer_probe(arrays)
            ran = await self.champion.batcher.submit(arrays, deadline)
            spared: dict[int, Fallback] = dict.fromkeys(range(rows), "breaker")
            return TrialResult(ran.decisions, spared, spared, ran.waited, ran.ran)
        decisions, waited, ran_s = done = await self._ask(arrays, rows, deadline, asked)
        failed = sorted(decisions.errors)
        if not failed:
            return self._without_fault(done, sizes)
        late = {
            index
            for index, error in decisions.errors.items()
            if isinstance(error, DeadlineExceededError | OverloadedError)
        }
        requests = [set(own) for own in spans(sizes)]
        for own in requests:
            if not own.isdisjoint(late) and not in_hurry:
                self.breaker.record(failed=True)  # whether or not the champion makes it
        rest = arrays if len(failed) == rows else take(arrays, np.array(failed))
        again = await self.champion.batcher.submit(rest, deadline)
        # What the champion cannot score either is the fault of the row.
        blameless = {
            failed[at] for at, error in again.decisions.errors.items() if isinstance(error, PredictionFailedError)
        }
        for own in requests:
            if own.isdisjoint(late):
                self.breaker.record(failed=not (own & set(failed) <= blameless))
        fallbacks: dict[int, Fallback] = {
            index: "timeout" if index in late else "error"
            for at, index in enumerate(failed)
            if at not in again.decisions.errors
        }
        whole = Decisions.placed([(range(rows), decisions), (failed, again.decisions)], rows)
        return TrialResult(whole, fallbacks, late, waited + again.waited, ran_s + again.ran)

    def _without_fault(self, done: Ran, sizes: Sequence[int]) -> TrialResult:
        for _ in sizes:
            self.breaker.record(failed=False)
        return TrialResult(done.decisions, {}, (), done.waited, done.ran)

    async def _ask(self, arrays: Arrays, rows: int, deadline: float, asked: asyncio.Future[Ran] | None) -> Ran:
        remaining = deadline - time.monotonic()
        reserve = max(RESERVE * self.champion.batcher.seconds_for(rows), LEAST_RESERVE * remaining)
        share = remaining - min(reserve, LARGEST_RESERVE * remaining)
        try:
            async with asyncio.timeout(share):
                return await (asked or self.challenger.batcher.submit(arrays, deadline))
        except TimeoutError:
            late = DeadlineExceededError("the challenger did not answer in time")
            return Ran(Decisions.failed(rows, late), share, 0.0)
        except (OverloadedError, DeadlineExceededError) as error:
            return Ran(Decisions.failed(rows, error), 0.0, 0.0)

    def _offer_probe(self, arrays: Arrays) -> None:
        """Asks the challenger without anybody waiting for it, if it is time for that."""
        if self.breaker.wants_probe():
            self._probe = asyncio.get_running_loop().create_task(self._run_probe(take(arrays, slice(0, 1))))

    async def _run_probe(self, row: Arrays) -> None:
        failed = True
        try:
            async with asyncio.timeout(PROBE_S):
                ran = await self.challenger.batcher.submit(row, time.monotonic() + PROBE_S)
                failed = bool(ran.decisions.errors)
        except (TimeoutError, RolloutError):
            pass
        finally:
            self.breaker.probed(failed=failed)

    def _report(self, state: BreakerState) -> None:
        tag = self.challenger.manifest.tag
        if state == "closed":
            logger.info("%s answers again; its clients get it", tag)
        elif state == "open":
            logger.error("%s fails too often; its clients get %s", tag, self.champion.version)
