"""The states of a review item: which way leads where, as pure functions.

Nothing is ever edited away: each step adds an event, and going back is a step too.
"""

from __future__ import annotations

import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Literal

import msgspec

from rollout.errors import LeaseLostError

Action = Literal["claim", "resolve", "skip", "escalate", "undo", "release", "expire", "import", "retire"]


class State(StrEnum):
    """Where an item is on its way."""

    OPEN = "open"
    LEASED = "leased"
    RESOLVED = "resolved"
    SKIPPED = "skipped"
    ESCALATED = "escalated"


# From which state to which a step may lead. A first of two reviews leads back to open; undo, to whoever decided.
LEGAL: dict[Action, tuple[frozenset[State], frozenset[State]]] = {
    "claim": (frozenset({State.OPEN, State.ESCALATED}), frozenset({State.LEASED})),
    "resolve": (frozenset({State.LEASED}), frozenset({State.RESOLVED, State.ESCALATED, State.OPEN})),
    "skip": (frozenset({State.LEASED}), frozenset({State.SKIPPED})),
    "escalate": (frozenset({State.LEASED}), frozenset({State.ESCALATED})),
    "release": (frozenset({State.LEASED}), frozenset({State.OPEN, State.ESCALATED})),
    "expire": (frozenset({State.LEASED}), frozenset({State.OPEN, State.ESCALATED})),
    "undo": (
        frozenset({State.RESOLVED, State.SKIPPED, State.ESCALATED, State.OPEN}),
        frozenset({State.LEASED}),
    ),
    "retire": (frozenset({State.OPEN, State.ESCALATED}), frozenset({State.SKIPPED})),
    "import": (frozenset(State) - {State.RESOLVED}, frozenset({State.RESOLVED})),
}


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person says about an item: the class, or the value.

    Attributes:
        label: The class, of a classification.
        value: The value, of a regression.
    """

    label: str | None = None
    value: float | None = None


class Review(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reviewer's answer.

    Attributes:
        reviewer: Who.
        at: When, ISO 8601 in UTC.
        label: The class, of a classification.
        value: The value, of a regression.
    """

    reviewer: str
    at: str
    label: str | None = None
    value: float | None = None

    @property
    def answer(self) -> Answer:
        """What was said."""
        return Answer(label=self.label, value=self.value)


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of an item.

    Attributes:
        at: When, ISO 8601 in UTC.
        who: The reviewer.
        did: The step.
        before: The state that it led from.
        after: The state that it led to.
        label: The class that was said, if one was.
        value: The value that was said, if one was.
        why: The reason given.
    """

    at: str
    who: str
    did: Action
    before: State
    after: State
    label: str | None = None
    value: float | None = None
    why: str = ""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who has an item, and until when.

    Attributes:
        reviewer: Who.
        token: What they show when they decide.
        until: Milliseconds since 1970.
        origin: The state to which the item returns without a decision.
    """

    reviewer: str
    token: str
    until: int
    origin: State


class Work(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an item so far.

    Attributes:
        state: Where it is on its way.
        reviews: The answers, oldest first.
        lease: Who has it; of a decided item, who decided last.
        label: The final class, once it is resolved.
        value: The final value, once it is resolved.
        why: Why it was skipped or escalated.
        decided: The last decision, while whoever made it may undo it.
        decided_at: When it was resolved, skipped or escalated, ISO 8601 in UTC.
    """

    state: State = State.OPEN
    reviews: tuple[Review, ...] = ()
    lease: Lease | None = None
    label: str | None = None
    value: float | None = None
    why: str = ""
    decided: Literal["resolve", "skip", "escalate"] | None = None
    decided_at: str | None = None

    def was_reviewed_by(self, reviewer: str) -> bool:
        """Whether somebody has given an answer: they do not get the item again."""
        return any(review.reviewer == reviewer for review in self.reviews)


Taken = tuple[Work, Event]


def claim(work: Work, reviewer: str, token: str, until: int, now: int) -> Taken:
    """Leases an item."""
    lease = Lease(reviewer=reviewer, token=token, until=until, origin=work.state)
    after = msgspec.structs.replace(work, state=State.LEASED, lease=lease, decided=None)
    return after, _event(work, after, "claim", reviewer, now)


def renew(work: Work, until: int) -> Work:
    """Gives the one who has an item more time; that is no step."""
    assert work.lease is not None  # noqa: S101  only what is leased is renewed
    return msgspec.structs.replace(work, lease=msgspec.structs.replace(work.lease, until=until))


def give_back(work: Work, did: Literal["release", "expire"], now: int) -> Taken:
    """Ends a lease without a decision."""
    assert work.lease is not None  # noqa: S101  only what is leased is given back
    after = msgspec.structs.replace(work, state=work.lease.origin, lease=None)
    return after, _event(work, after, did, work.lease.reviewer, now)


def resolve(work: Work, lease: Lease, answer: Answer, now: int, required: int) -> Taken:
    """Takes an answer: enough equal ones resolve an item, and so does an adjudicator's; others escalate it."""
    at = iso(now)
    reviews = (*work.reviews, Review(reviewer=lease.reviewer, at=at, label=answer.label, value=answer.value))
    state, final = State.RESOLVED, answer
    if lease.origin is not State.ESCALATED:
        if any(review.answer != answer for review in reviews):
            state, final = State.ESCALATED, Answer()
        elif len(reviews) < required:
            state, final = State.OPEN, Answer()
    after = msgspec.structs.replace(
        work,
        state=state,
        reviews=reviews,
        label=final.label,
        value=final.value,
        why="the reviewers differ" if state is State.ESCALATED else "",
        decided="resolve",
        decided_at=None if state is State.OPEN else at,
    )
    return after, _event(work, after, "resolve", lease.reviewer, now, answer)


def set_aside(work: Work, lease: Lease, did: Literal["skip", "escalate"], why: str, now: int) -> Taken:
    """Decides that nobody, or somebody else, is to answer."""
    state = State.SKIPPED if did == "skip" else State.ESCALATED
    after = msgspec.structs.replace(work, state=state, why=why, decided=did, decided_at=iso(now))
    return after, _event(work, after, did, lease.reviewer, now, why=why)


def retire(work: Work, now: int) -> Taken:
    """Ends an item that nobody looked at in time."""
    why = "its inputs are not kept any more"
    after = msgspec.structs.replace(
        work, state=State.SKIPPED, lease=None, decided=None, why=why, decided_at=iso(now)
    )
    return after, _event(work, after, "retire", "", now, why=why)


def undo(work: Work, token: str, until: int, now: int) -> Taken:
    """Takes the last decision back and leases the item to whoever made it.

    Raises:
        LeaseLostError: If the last decision was not made under this token.
    """
    lease = work.lease
    if work.decided is None or lease is None or lease.token != token:
        raise LeaseLostError(
            "there is no decision of yours to undo: another reviewer has had the item since, or it was imported"
        )
    after = msgspec.structs.replace(
        work,
        state=State.LEASED,
        reviews=work.reviews[:-1] if work.decided == "resolve" else work.reviews,
        decided=None,
        lease=msgspec.structs.replace(lease, until=until),
        label=None,
        value=None,
        why="",
        decided_at=None,
    )
    return after, _event(work, after, "undo", lease.reviewer, now)


def take_over(work: Work, reviewer: str, answer: Answer, now: int) -> Taken:
    """Resolves an item by an answer that was given elsewhere."""
    at = iso(now)
    review = Review(reviewer=reviewer, at=at, label=answer.label, value=answer.value)
    after = msgspec.structs.replace(
        work,
        state=State.RESOLVED,
        reviews=(*work.reviews, review),
        lease=None,
        decided=None,
        label=answer.label,
        value=answer.value,
        why="",
        decided_at=at,
    )
    return after, _event(work, after, "import", reviewer, now, answer)


def require_lease(work: Work, token: str, now: int) -> Lease:
    """Returns the lease of whoever has an item.

    Raises:
        LeaseLostError: If the lease is another's, ended, or over.
    """
    lease = work.lease
    if work.state is not State.LEASED or lease is None or lease.token != token:
        raise LeaseLostError(
            f"this lease is gone and nothing was changed; the item is {work.state}: claim again for the next one"
        )
    if lease.until <= now:
        raise LeaseLostError(f"this lease ended at {iso(lease.until)} and nothing was changed: claim again")
    return lease


@lru_cache  # of one batch, all have one time
def iso(milliseconds: int) -> str:
    """Returns a time as ISO 8601 in UTC."""
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _event(
    before: Work, after: Work, did: Action, who: str, now: int, answer: Answer | None = None, why: str = ""
) -> Event:
    sources, targets = LEGAL[did]
    assert before.state in sources, (did, before.state)  # noqa: S101
    assert after.state in targets, (did, after.state)  # noqa: S101
    said = answer or Answer()
    return Event(
        at=iso(now),
        who=who,
        did=did,
        before=before.state,
        after=after.state,
        label=said.label,
        value=said.value,
        why=why,
    )
