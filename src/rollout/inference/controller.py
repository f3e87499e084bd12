"""The controller of trials: of all workers, one gathers a trial's evidence, judges it, and does what follows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import get_args

from rollout import metrics
from rollout.config import Settings
from rollout.errors import RolloutError, SplitConflictError, StoreUnavailableError
from rollout.heads import Head
from rollout.inference.intake import Intake
from rollout.judge.evidence import TrialEvidence
from rollout.judge.policy import Act
from rollout.judge.verdict import Decision, Verdict, judge
from rollout.keys import Keys
from rollout.lease import Lease
from rollout.repeating import repeat
from rollout.routing.by_itself import carry_out_act, next_act
from rollout.routing.looks import add_look, is_due, keep_counted, read_counted
from rollout.routing.split import Split
from rollout.routing.splits import read_split
from rollout.routing.trial_evidence import keep_evidence, read_course, read_trial
from rollout.routing.verdict import shown
from rollout.store import Redis

LOOK_EVERY_S = 1.0
LEASE_S = 5.0
HOW_FAR_EVERY_S = 10.0
# Evidence expires a month after the last of it, and not while its trial lasts.
RENEW_EVERY_S = 3600.0

logger = logging.getLogger(__name__)


class Controller:
    """Looks after the trial of one model. Any worker can take over at any time, and none does a thing twice.

    What holds that together is Redis alone: outcomes are marked as gathered, and a change is compared with the
    revision that was judged. The lease only saves work.

    Args:
        redis: Connection.
        model: The model.
        settings: Who must have signed the bundles.
        head: Says what the model answers.
    """

    def __init__(self, redis: Redis, model: str, settings: Settings, head: Callable[[], Head]) -> None:
        self._redis = redis
        self._model = model
        self._key = settings.public_key
        self._lease = Lease(redis, Keys(model).controller_lock, LEASE_S)
        self._intake = Intake(redis, model, head)
        self._course: list[Split] = []
        self._looked = (0, 0.0)  # the last look that was kept: at which revision, and when
        self._renewed: tuple[int, float] | None = None  # of which revision on, and when
        self._next_far = 0.0
        self._refused = ""
        # A series that begins with its first increment is not seen to rise.
        for act in get_args(Act):
            metrics.ACTS.labels(model, act)

    async def run(self) -> None:
        """Looks for ever; with Redis gone, nothing happens."""
        try:
            await repeat(self.look, LOOK_EVERY_S, f"the trial of {self._model} could not be looked after")
        finally:
            self._show(None)
            with suppress(StoreUnavailableError):
                await self._lease.release()

    async def look(self) -> Act | None:
        """Does once what there is to do, if no other worker does it.

        Returns:
            What was done.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """
        if not await self._lease.hold():
            self._show(None)
            return None
        split = await read_split(self._redis, self._model)
        if split is None or split.challenger is None:
            await self._intake.gather()
            self._show(None)
            return None
        if not self._course or self._course[-1] != split:
            self._course = await read_course(self._redis, self._model, split)
        first = self._course[0].revision
        await self._renew(first)
        await self._look_how_far(split)
        await self._intake.gather(split.policy.numbers if split.policy is not None else ())
        before = await read_counted(self._redis, self._model, first)
        evidence = await read_trial(self._redis, self._model, self._course)
        verdict = await asyncio.to_thread(judge, evidence, split.policy, before)
        if verdict.reason != "impossible":
            await keep_counted(self._redis, self._model, first, evidence)
        self._show(verdict.verdict)
        seconds = time.time() - datetime.fromisoformat(split.at).timestamp()
        act = next_act(split, verdict, seconds)
        await self._keep(split, verdict, evidence, has_act=act is not None)
        return None if act is None else await self._act(split, act, verdict)

    async def _look_how_far(self, split: Split) -> None:
        """Looks now and then how far people have decided, where that counts."""
        now = time.monotonic()
        if split.policy is not None and split.policy.compare == "reviews" and now > self._next_far:
            await self._intake.look_how_far(self._course[0])
            self._next_far = now + HOW_FAR_EVERY_S

    async def _act(self, split: Split, act: Act, verdict: Verdict) -> Act | None:
        try:
            stored = await carry_out_act(self._redis, self._model, split, act, verdict, self._key)
        except SplitConflictError:
            return None  # somebody else was first, and that stands
        except StoreUnavailableError:
            raise
        except RolloutError as error:
            if self._refused != error.detail:
                self._refused = error.detail
                logger.error("%s cannot %s by itself: %s", self._model, act, error.detail)
            return None
        self._refused = ""
        metrics.ACTS.labels(self._model, act).inc()
        logger.warning(
            "%s, revision %d, by itself: %s %s: %s",
            *(self._model, stored.revision, act, split.challenger, stored.why),
        )
        return act

    async def _renew(self, first: int) -> None:
        """Lets the evidence live for as long as its trial, and a month more."""
        now = time.monotonic()
        if self._renewed is None or self._renewed[0] != first or now - self._renewed[1] > RENEW_EVERY_S:
            await keep_evidence(self._redis, self._model, self._course)
            self._renewed = first, now

    async def _keep(self, split: Split, verdict: Verdict, evidence: TrialEvidence, *, has_act: bool) -> None:
        """Keeps a look for those who want to see how it came about."""
        revision, at = self._looked
        now = time.monotonic()
        age = sum(stage.seconds for stage in evidence.stages)
        if has_act or revision != split.revision or is_due(age, now - at):
            await add_look(self._redis, self._model, split, verdict, shown(evidence))
            self._looked = split.revision, now

    def _show(self, verdict: Decision | None) -> None:
        """Shows the verdict as a metric, of the worker that looks after the trial."""
        for one in get_args(Decision):
            metrics.VERDICT.labels(self._model, one).set(one == verdict)
