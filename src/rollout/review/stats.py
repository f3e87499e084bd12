"""The review of a model in figures: the queue, its reviewers, and how good the model turned out to be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator

import msgspec

from rollout.heads import Head
from rollout.judge.accuracy import Reviewed
from rollout.review.counts import read_counts
from rollout.review.estimate import Estimate, estimate
from rollout.review.item import OF_TRAFFIC, Reason, ReviewItem
from rollout.review.queue import list_items
from rollout.review.records import read_changes
from rollout.review.reviewers import Pace, PairStats, Reviewers, ReviewerStats
from rollout.review.state import State, Work
from rollout.store import Redis, server_time


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The review of a model in figures.

    Attributes:
        model: The model.
        states: How many items are where, by reason.
        oldest: When the oldest open item was predicted, ISO 8601.
        excess: What did not enter, for being too much, by reason.
        pace: Decisions an hour.
        reviewers: What each of them did, the busiest first.
        pairs: How far each two of them agree.
        measure: What is right, in words: the model's ``label`` is the people's, or its ``interval`` has theirs.
        overall: How often it is right, over all versions.
        versions: The same of each version.
    """

    model: str
    states: dict[State, dict[Reason, int]]
    oldest: str | None
    excess: dict[Reason, int]
    pace: Pace
    reviewers: list[ReviewerStats]
    pairs: list[PairStats]
    measure: str
    overall: Estimate
    versions: list[Estimate]


async def review_stats(redis: Redis, model: str) -> Stats:
    """Returns the review of a model in figures; that reads every item that anybody has decided on.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    counts = await read_counts(redis, model)
    reviewers = Reviewers(await server_time(redis, model) // 1000)
    reviewed: defaultdict[str, defaultdict[Reason, list[Reviewed]]] = defaultdict(lambda: defaultdict(list))
    unjudged: Counter[str] = Counter()
    measure = Head.measure
    async for record in read_changes(redis, model):
        if record.work.state is not State.RESOLVED:
            continue
        truth = record.work.truth
        reviewers.add(record.work, record.item.head)
        measure = record.item.head.measure
        for prediction in (record.item, *record.links):
            if not prediction.is_traffic:
                continue
            loss = prediction.head.loss(prediction.answer, truth)
            if loss is None:
                unjudged[prediction.version] += 1
            else:
                reviewed[prediction.version][prediction.reason].append(Reviewed(1 / prediction.pi, 1 - loss))
    async for item, work in _unresolved(redis, model):
        reviewers.add(work, item.head)
    entered = [one for one in counts.entered if one.reason in OF_TRAFFIC]
    versions = sorted({one.version for one in entered} | reviewed.keys() | unjudged.keys())
    by_reason: defaultdict[Reason, list[Reviewed]] = defaultdict(list)
    for each in reviewed.values():
        for reason, found in each.items():
            by_reason[reason] += found
    return Stats(
        model=model,
        states=counts.states,
        oldest=counts.oldest,
        excess=counts.excess,
        pace=reviewers.pace,
        reviewers=reviewers.stats(),
        pairs=reviewers.pairs(),
        measure=measure,
        overall=estimate(model, None, entered, by_reason, unjudged.total()),
        versions=[
            estimate(
                model,
                version,
                [one for one in entered if one.version == version],
                reviewed[version],
                unjudged[version],
            )
            for version in versions
        ],
    )


async def _unresolved(redis: Redis, model: str) -> AsyncIterator[tuple[ReviewItem, Work]]:
    """Yields what people have done on items that are not resolved."""
    for state in (State.SKIPPED, State.ESCALATED, State.LEASED, State.OPEN):
        async for item, work in list_items(redis, model, {}, state=state):
            if state is State.OPEN and not work.reviews:
                break  # those with a review come first
            yield item, work
