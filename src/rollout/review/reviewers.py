"""What reviewers did, how far they agree, and how fast they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations

import msgspec

from rollout.judge.kappa import measure_agreement
from rollout.review.item import milliseconds
from rollout.review.state import Answer, State, Work

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
        shared: Resolved items among them that somebody else answered as well.
        agreement: Share of those on which their answer became the label; ``None`` where there are none.
    """

    reviewer: str
    decisions: int
    shared: int
    agreement: float | None


class PairStats(msgspec.Struct, frozen=True, kw_only=True):
    """How far two reviewers agree on classes.

    Attributes:
        reviewers: Who.
        items: Items that both answered.
        share: Share of them with the same answer.
        kappa: Cohen's kappa; ``None`` where both only ever gave one label.
    """

    reviewers: tuple[str, str]
    items: int
    share: float | None
    kappa: float | None


class Reviewers:
    """Adds up who decided what, item by item.

    Args:
        now: Milliseconds since 1970.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._lately: Counter[int] = Counter()
        self._decisions: Counter[str] = Counter()
        self._shared: Counter[str] = Counter()
        self._agreed: Counter[str] = Counter()
        self._pairs: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)

    def add(self, work: Work) -> None:
        """Adds what became of an item."""
        made = [(review.reviewer, review.at) for review in work.reviews]
        if work.decided in ("skip", "escalate") and work.lease is not None and work.decided_at is not None:
            made.append((work.lease.reviewer, work.decided_at))
        self._decisions.update(who for who, _ in made)
        # Only an import resolves what nobody has.
        by_hand = made[:-1] if work.state is State.RESOLVED and work.lease is None else made
        for _, at in by_hand:
            age = self._now - milliseconds(at)
            self._lately.update(period for period in (HOUR_MS, DAY_MS) if age < period)
        answers = {review.reviewer: review.answer for review in work.reviews}
        if len(answers) < 2:
            return
        if work.state is State.RESOLVED:
            self._shared.update(answers.keys())
            final = Answer(label=work.label, value=work.value)
            self._agreed.update(who for who, answer in answers.items() if answer == final)
        for one, other in combinations(sorted(answers), 2):
            pair = answers[one].label, answers[other].label
            if pair[0] is not None and pair[1] is not None:
                self._pairs[one, other].append((pair[0], pair[1]))

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
                shared=self._shared[who],
                agreement=self._agreed[who] / self._shared[who] if self._shared[who] else None,
            )
            for who, decisions in sorted(self._decisions.items(), key=lambda one: (-one[1], one[0]))
        ]

    def pairs(self) -> list[PairStats]:
        """Returns how far each two of them agree."""
        found = {pair: measure_agreement(answers) for pair, answers in sorted(self._pairs.items())}
        return [
            PairStats(reviewers=pair, items=one.items, share=one.share, kappa=one.kappa)
            for pair, one in found.items()
        ]
