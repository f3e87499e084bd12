"""From what callers report and people decide to the evidence of the trial: each counts once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from rollout.heads import Head
from rollout.judge.policy import ACCURACY
from rollout.keys import Keys
from rollout.review.counts import read_counts
from rollout.review.estimate import SAMPLED
from rollout.review.item import ReviewItem, milliseconds
from rollout.review.outcomes import Outcome, read_outcomes_since
from rollout.review.queue import CHUNK
from rollout.review.records import Record, read_changes
from rollout.review.state import State, Work
from rollout.review.undecided import is_any_unseen, undecided_since
from rollout.routing.client_counts import TRIAL
from rollout.routing.split import Split
from rollout.routing.trial_evidence import Decided, Observed, add_decisions, add_outcomes, add_reviewed
from rollout.routing.trial_reviews import Reviewed, client_hash, move_until
from rollout.store import Redis, advance, guard, stored_at

# Rows are on their way into the queue for so many seconds at most, unless Redis is away.
UNDER_WAY_S = 10


class Intake:
    """Adds what is new to the evidence. Doing it twice, or in two workers at once, changes nothing.

    Args:
        redis: Connection.
        model: The model.
        head: Says what it answers.
    """

    def __init__(self, redis: Redis, model: str, head: Callable[[], Head]) -> None:
        self._redis = redis
        self._head = head
        self._model = model
        self._keys = Keys(model)

    async def gather(self, numbers: Collection[str] = ()) -> None:
        """Adds all that is new.

        Args:
            numbers: Which of the numbers that callers report count. Callers choose the names, and who chose many
                would make the evidence of a trial long to read.

        Raises:
            StoreUnavailableError: If Redis does not answer; the rest is added the next time.
        """
        await self._gather_outcomes(numbers)
        await self._gather_decisions()

    async def look_how_far(self, first: Split) -> None:
        """Notes how far everything of a trial that came to review is decided.

        Gather afterwards: what is decided meanwhile is to be in the evidence when it counts.

        Args:
            first: The split with which it began.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """
        now = round((time.time() - UNDER_WAY_S) * 1000)
        kept_out = sum(
            one.kept_out
            for one in (await read_counts(self._redis, self._model)).entered
            if one.arm in TRIAL and one.reason in SAMPLED
        )
        of_trial = (self._redis, self._model, TRIAL, SAMPLED, first.revision)
        since = await undecided_since(*of_trial)
        until = now if since is None else min(since, now)
        unseen = await is_any_unseen(*of_trial, since=milliseconds(first.at))
        await move_until(self._redis, self._model, first.revision, until, kept_out, is_any_unseen=unseen)

    async def _gather_outcomes(self, numbers: Collection[str]) -> None:
        chunk: list[Outcome] = []
        async for outcome in read_outcomes_since(self._redis, self._model, await self._cursor("outcomes")):
            chunk.append(outcome)
            if len(chunk) == CHUNK:
                await self._add_outcomes(chunk, numbers)
                chunk = []
        if chunk:
            await self._add_outcomes(chunk, numbers)

    async def _add_outcomes(self, chunk: list[Outcome], numbers: Collection[str]) -> None:
        observed = [one for outcome in chunk if (one := observe(outcome, self._head(), numbers)) is not None]
        await add_outcomes(self._redis, self._model, observed)
        # One that is joined while it is read comes once more.
        await self._advance("outcomes", chunk[-1].cursor)

    async def _gather_decisions(self) -> None:
        async for record in read_changes(self._redis, self._model, await self._cursor("reviews")):
            items = [item for item in (record.item, *record.links) if item.arm != "challenger"]
            decided = {item.id: decide(item, item.other, record) for item in items if item.other is not None}
            await add_decisions(self._redis, self._model, decided)
            of_arms = [item for item in (record.item, *record.links) if counts(item)]
            await add_reviewed(self._redis, self._model, {item.id: judged(item, record) for item in of_arms})
            await self._advance("reviews", record.cursor)

    async def _cursor(self, what: str) -> int:
        key = self._keys.gathered(what)
        async with guard():
            stored = await self._redis.get(key)
        with stored_at(key):
            return int(stored or 0)

    async def _advance(self, what: str, cursor: int) -> None:
        await advance(self._redis, self._keys.gathered(what), cursor)


def observe(outcome: Outcome, head: Head, numbers: Collection[str]) -> Observed | None:
    """Returns what an outcome says about its arm; ``None`` outside the trial, and while nothing is known.

    Args:
        outcome: What was reported, with its prediction.
        head: What the model answers.
        numbers: Which of the numbers that were reported count.
    """
    predicted = outcome.predicted
    if predicted is None or predicted.arm not in TRIAL or predicted.pinned:
        return None
    loss = head.loss(predicted.answer, outcome.truth) if outcome.forms else None
    values = {name: number for name, number in outcome.numbers.items() if name in numbers}
    if loss is not None:
        values[ACCURACY] = 1 - loss
    if not values:
        return None
    return Observed(outcome.id, outcome.client_id, predicted.arm, predicted.revision, values)


def counts(item: ReviewItem) -> bool:
    """Whether a row in review speaks for those of its arm, by the probability with which it came there."""
    return item.arm in TRIAL and item.reason in SAMPLED and not item.pinned


def judged(item: ReviewItem, record: Record) -> Reviewed | None:
    """Returns how far the answer to a row was right; ``None`` where nobody knows any more.

    Args:
        item: The row, with what was answered.
        record: What people decided.
    """
    work: Work = record.work
    loss = item.head.loss(item.answer, work.truth) if work.state is State.RESOLVED else None
    if loss is None:
        return None
    return Reviewed(
        at=milliseconds(item.at),
        arm=item.arm,
        client=client_hash(item.client_id),
        revision=item.revision,
        right=1 - loss,
        pi=item.pi,
        is_audit=item.reason == "audit",
    )


def decide(item: ReviewItem, other: dict[str, Any], record: Record) -> Decided | None:
    """Returns who was right on a row on which the versions disagree; ``None`` where nobody knows any more.

    Args:
        item: The row, with what the champion made of it.
        other: What the challenger made of it.
        record: What people decided.
    """
    work: Work = record.work
    if work.state is not State.RESOLVED:
        return None
    ours, theirs = item.head.loss(item.answer, work.truth), item.head.loss(other, work.truth)
    if ours is None or theirs is None:
        return None
    # A row that is there as an audit would be there as a disagreement otherwise.
    pi = item.pi if item.reason != "audit" else 1.0
    return Decided(
        cursor=record.cursor,
        revision=item.revision,
        right=ours - theirs,
        pi=pi * other.get("pi", 1.0),
    )
