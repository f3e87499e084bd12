"""The states of a review item: which way leads where, as pure functions.

Nothing is ever edited away: each step adds an event, and going back is a step too.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from rollout.errors import LeaseLostError
from rollout.heads import Truth
from rollout.review.item import milliseconds

Action = Literal["claim", "resolve", "skip", "escalate", "undo", "release", "expire", "import", "retire"]

LAST_MS = 253_402_300_799_999  # of the year 9999


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


# What no one has said yet.
UNSAID = Truth()


class Review(Truth, frozen=True, kw_only=True, omit_defaults=True):
    """One reviewer's answer, beside who gave it.

    Attributes:
        reviewer: Who.
        at: When, ISO 8601 in UTC.
        explained: Whether they had seen an explanation of the model's answer, which biases people.
    """

    reviewer: str
    at: str
    explained: bool = False


class Event(Truth, frozen=True, kw_only=True, omit_defaults=True):
    """One step of an item, with what was said, if anything was.

    Attributes:
        at: When, ISO 8601 in UTC.
        who: The reviewer.
        did: The step.
        before: The state that it led from.
        after: The state that it led to.
        why: The reason given.
    """

    at: str
    who: str
    did: Action
    before: State
    after: State
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
    until: Annotated[int, msgspec.Meta(ge=0, le=LAST_MS)]
    origin: State

    def __post_init__(self) -> None:
        if self.origin not in (State.OPEN, State.ESCALATED):
            raise ValueError("a lease leads back to open or escalated")


class Work(Truth, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an item so far, with the final answer, once it is resolved.

    Attributes:
        state: Where it is on its way.
        reviews: The answers, oldest first.
        lease: Who has it; of a decided item, who decided last.
        why: Why it was skipped or escalated.
        decided: The last decision, while whoever made it may undo it.
        decided_at: When it was resolved, skipped or escalated, ISO 8601 in UTC.
        explained_to: Who has seen an explanation of the model's answer.
    """

    state: State = State.OPEN
    reviews: tuple[Review, ...] = ()
    lease: Lease | None = None
    why: str = ""
    decided: Literal["resolve", "skip", "escalate"] | None = None
    decided_at: str | None = None
    explained_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state is State.LEASED and self.decided:
            raise ValueError("it is leased and decided")
        if (self.lease is None) is (self.state is State.LEASED or self.decided is not None):
            raise ValueError("it has a lease where it is leased or its decision can be undone, and only there")
        if not self.reviews and (self.state is State.RESOLVED or self.decided == "resolve"):
            raise ValueError("it is answered by nobody")
        if self.decided_at is not None:
            milliseconds(self.decided_at)

    def was_reviewed_by(self, reviewer: str) -> bool:
        """Whether somebody has given an answer: they do not get the item again."""
        return any(review.reviewer == reviewer for review in self.reviews)


Taken = tuple[Work, Event]
# What two answers say together, or None where they differ.
Agreed = Callable[[Truth, Truth], Truth | None]


def claim(work: Work, reviewer: str, token: str, until: int, now: int) -> Taken:
    """Leases an item."""
    lease = Lease(reviewer=reviewer, token=token, until=until, origin=work.state)
    after = msgspec.structs.replace(work, state=State.LEASED, lease=lease, decided=None)
    return after, _event(work, after, "claim", reviewer, now)


def renew(work: Work, until: int) -> Work:
    """Gives the one who has an item more time; that is no step."""
    assert work.lease is not None  # noqa: S101  only what is leased is renewed
    return msgspec.structs.replace(work, lease=msgspec.structs.replace(work.lease, until=until))


def explain(work: Work, lease: Lease) -> Work:
    """Notes that whoever has an item sees an explanation; that is no step, and nothing takes it back."""
    seen = tuple(dict.fromkeys((*work.explained_to, lease.reviewer)))
    return msgspec.structs.replace(work, explained_to=seen)


def give_back(work: Work, did: Literal["release", "expire"], now: int) -> Taken:
    """Ends a lease without a decision."""
    assert work.lease is not None  # noqa: S101  only what is leased is given back
    after = msgspec.structs.replace(work, state=work.lease.origin, lease=None)
    return after, _event(work, after, did, work.lease.reviewer, now)


def resolve(work: Work, lease: Lease, truth: Truth, now: int, required: int, agreed: Agreed) -> Taken:
    """Takes an answer: enough that agree resolve an item, and so does an adjudicator's; others escalate it."""
    at = iso(now)
    reviews = (*work.reviews, _review(work, lease.reviewer, at, truth))
    state, final = State.RESOLVED, truth
    if lease.origin is not State.ESCALATED:
        together: Truth | None = truth
        for review in reversed(work.reviews):
            together = together and agreed(review.truth, together)
        final = together or UNSAID
        if together is None:
            state = State.ESCALATED
        elif len(reviews) < required:
            state, final = State.OPEN, UNSAID
    after = msgspec.structs.replace(
        work,
        state=state,
        reviews=reviews,
        **msgspec.structs.asdict(final),
        why="the reviewers differ" if state is State.ESCALATED else "",
        decided="resolve",
        decided_at=None if state is State.OPEN else at,
    )
    return after, _event(work, after, "resolve", lease.reviewer, now, truth)


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
        **msgspec.structs.asdict(UNSAID),
        why="",
        decided_at=None,
    )
    return after, _event(work, after, "undo", lease.reviewer, now)


def take_over(work: Work, reviewer: str, truth: Truth, now: int) -> Taken:
    """Resolves an item by an answer that was given elsewhere."""
    at = iso(now)
    after = msgspec.structs.replace(
        work,
        state=State.RESOLVED,
        reviews=(*work.reviews, _review(work, reviewer, at, truth)),
        lease=None,
        decided=None,
        **msgspec.structs.asdict(truth),
        why="",
        decided_at=at,
    )
    return after, _event(work, after, "import", reviewer, now, truth)


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


def _review(work: Work, reviewer: str, at: str, truth: Truth) -> Review:
    said = msgspec.structs.asdict(truth)
    return Review(reviewer=reviewer, at=at, explained=reviewer in work.explained_to, **said)


def _event(
    before: Work, after: Work, did: Action, who: str, now: int, truth: Truth = UNSAID, why: str = ""
) -> Event:
    sources, targets = LEGAL[did]
    assert before.state in sources, (did, before.state)  # noqa: S101
    assert after.state in targets, (did, after.state)  # noqa: S101
    return Event(
        at=iso(now),
        who=who,
        did=did,
        before=before.state,
        after=after.state,
        **msgspec.structs.asdict(truth),
        why=why,
    )
