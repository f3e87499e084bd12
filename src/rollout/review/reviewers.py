"""What reviewers did, how far they agree, and how fast they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations

import msgspec

from rollout.heads import Head, Truth
from rollout.judge.alpha import measure_alpha
from rollout.judge.kappa import measure_agreement
from rollout.review.item import milliseconds
from rollout.review.state import State, Work

HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions an hour, without labels that were imported.

    Attributes:
        hour: Over the last hour.
        day: Over the last 24 hours.
    """

    hour: float
    day: float


class ReviewerStats(msgspec.Struct, frozen=True, kw_only=True):
    """What one reviewer did.

    Attributes:
        reviewer: Who.
        decisions: Items decided on: answered, skipped or passed on, and still so.
        explained: Answers among them that they gave after they had seen an explanation of the model's.
        shared: Resolved items among them that somebody else answered as well.
        agreement: Share of those on which their answer became the label; ``None`` where there are none.
    """

    reviewer: str
    decisions: int
    explained: int
    shared: int
    agreement: float | None


class PairStats(msgspec.Struct, frozen=True, kw_only=True):
    """How far two reviewers agree.

    Attributes:
        reviewers: Who.
        items: Items that both answered.
        share: Share of them with the same answer.
        kappa: Cohen's kappa, where answers are single labels; ``None`` where both only ever gave one label.
        alpha: Krippendorff's alpha, where they are more than that; ``None`` where both only ever gave one answer.
    """

    reviewers: tuple[str, str]
    items: int
    share: float | None
    kappa: float | None = None
    alpha: float | None = None


class Reviewers:
    """Adds up who decided what, item by item.

    Args:
        now: Milliseconds since 1970.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._lately: Counter[int] = Counter()
        self._decisions: Counter[str] = Counter()
        self._explained: Counter[str] = Counter()
        self._shared: Counter[str] = Counter()
        self._agreed: Counter[str] = Counter()
        self._pairs: defaultdict[tuple[str, str], list[tuple[Truth, Truth]]] = defaultdict(list)
        self._head: Head | None = None

    def add(self, work: Work, head: Head) -> None:
        """Adds what became of an item, and what had answered it."""
        made = [(review.reviewer, review.at) for review in work.reviews]
        if work.decided in ("skip", "escalate") and work.lease is not None and work.decided_at is not None:
            made.append((work.lease.reviewer, work.decided_at))
        self._decisions.update(who for who, _ in made)
        self._explained.update(review.reviewer for review in work.reviews if review.explained)
        # Only an import resolves what nobody has.
        by_hand = made[:-1] if work.state is State.RESOLVED and work.lease is None else made
        for _, at in by_hand:
            age = self._now - milliseconds(at)
            self._lately.update(period for period in (HOUR_MS, DAY_MS) if age < period)
        answers = {review.reviewer: review.truth for review in work.reviews}
        if len(answers) < 2:
            return
        if work.state is State.RESOLVED:
            self._shared.update(answers.keys())
            self._agreed.update(
                who for who, answer in answers.items() if head.agreed(answer, work.truth) is not None
            )
        for one, other in combinations(sorted(answers), 2):
            self._pairs[one, other].append((answers[one], answers[other]))
            self._head = head

    @property
    def pace(self) -> Pace:
        """Decisions an hour."""
        return Pace(hour=float(self._lately[HOUR_MS]), day=self._lately[DAY_MS] * HOUR_MS / DAY_MS)

    def stats(self) -> list[ReviewerStats]:
        """Returns what each of them did, the busiest first."""
        return [
            ReviewerStats(
                reviewer=who,
                decisions=decisions,
                explained=self._explained[who],
                shared=self._shared[who],
                agreement=self._agreed[who] / self._shared[who] if self._shared[who] else None,
            )
            for who, decisions in sorted(self._decisions.items(), key=lambda one: (-one[1], one[0]))
        ]

    def pairs(self) -> list[PairStats]:
        """Returns how far each two of them agree."""
        return [self._pair(reviewers, answers) for reviewers, answers in sorted(self._pairs.items())]

    def _pair(self, reviewers: tuple[str, str], answers: list[tuple[Truth, Truth]]) -> PairStats:
        labels = [
            (one.label, other.label)
            for one, other in answers
            if one.label is not None and other.label is not None
        ]
        if len(labels) == len(answers):
            found = measure_agreement(labels)
            return PairStats(reviewers=reviewers, items=found.items, share=found.share, kappa=found.kappa)
        truths = {msgspec.json.encode(truth): truth for pair in answers for truth in pair}

        def difference(one: bytes, other: bytes) -> float:
            assert self._head is not None  # noqa: S101  there are answers
            return self._head.truth_distance(truths[one], truths[other])

        coded = [(msgspec.json.encode(one), msgspec.json.encode(other)) for one, other in answers]
        return PairStats(
            reviewers=reviewers,
            items=len(answers),
            share=sum(difference(one, other) == 0 for one, other in coded) / len(coded),
            alpha=measure_alpha(coded, difference).alpha,
        )
