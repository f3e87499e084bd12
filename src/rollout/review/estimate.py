"""How often a model is right on all of its traffic, from what came to review, and what that rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from rollout.judge.accuracy import Reviewed, estimate_accuracy
from rollout.judge.accuracy import Stratum as Sampled
from rollout.review.counts import Entered
from rollout.review.item import Reason

# What the unbiased estimate rests on; whatever the versions disagree on is one of the two as well.
SAMPLED: tuple[Reason, ...] = ("low_confidence", "audit")
# Less than that of what entered is reviewed: then the estimate says what it assumes.
MOST = 0.8

ByReason = Mapping[Reason, Sequence[Reviewed]]


class Stratum(msgspec.Struct, frozen=True, kw_only=True):
    """What came to review for one reason.

    Attributes:
        reason: Why.
        entered: Predictions that entered the queue.
        kept_out: Those that a limit kept out.
        weight: Predictions that both stand for.
        reviewed: Those that people have answered.
        right: Weighted share of these on which the model was right; ``None`` where there are none.
    """

    reason: Reason
    entered: int
    kept_out: int
    weight: float
    reviewed: int
    right: float | None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """How often a model is right.

    Attributes:
        version: The version; ``None`` for all together.
        reviewed: Predictions that people have answered.
        raw: Share of them on which the model was right: of what was reviewed, not of what was asked.
        estimate: The share of all predictions that are right, unbiased by what was sent to review.
        low: Lower end of its 95 % interval.
        high: Its upper end.
        strata: What it rests on, by reason.
        notes: What is missing or assumed, in sentences.
    """

    version: str | None
    reviewed: int
    raw: float | None
    estimate: float | None
    low: float | None
    high: float | None
    strata: list[Stratum]
    notes: list[str]


def estimate(
    model: str, version: str | None, entered: Sequence[Entered], reviewed: ByReason, unjudged: int = 0
) -> Estimate:
    """Estimates how often a model is right on all of its traffic.

    Args:
        model: The model.
        version: The version; ``None`` for all together.
        entered: What entered the queue of it, and what limits kept out.
        reviewed: Its predictions that people have answered, by reason.
        unjudged: Predictions that people have answered, and that are neither right nor wrong.
    """
    strata = []
    for reason in dict.fromkeys([*SAMPLED, *(one.reason for one in entered)]):
        found = reviewed.get(reason, ())
        weight = sum(one.weight for one in found)
        offered = [one for one in entered if one.reason == reason]
        strata.append(
            Stratum(
                reason=reason,
                entered=sum(one.items for one in offered),
                kept_out=sum(one.kept_out for one in offered),
                weight=sum(one.weight for one in offered),
                reviewed=len(found),
                right=sum(one.weight * one.right for one in found) / weight if weight else None,
            )
        )
    everything = [one for found in reviewed.values() for one in found]
    sampled: dict[str, Sampled] = {
        one.reason: Sampled(one.weight, reviewed.get(one.reason, ())) for one in strata if one.reason in SAMPLED
    }
    audited = sampled["audit"].weight > 0
    # Without an audit, nothing speaks for what the model was sure of.
    accuracy = estimate_accuracy(sampled if audited else {})
    return Estimate(
        version=version,
        reviewed=len(everything),
        raw=sum(one.right for one in everything) / len(everything) if everything else None,
        estimate=accuracy.estimate,
        low=accuracy.low,
        high=accuracy.high,
        strata=strata,
        notes=[*_unjudged(unjudged), *_notes(model, strata)],
    )


def _unjudged(unjudged: int) -> list[str]:
    if not unjudged:
        return []
    neither = "whose answers are neither right nor wrong: they say nothing of accuracy"
    return [f"{unjudged:,} more are reviewed {neither}"]


def _notes(model: str, strata: Sequence[Stratum]) -> list[str]:
    sampled = {stratum.reason: stratum for stratum in strata if stratum.reason in SAMPLED}
    if not sampled["audit"].weight:
        return [
            "nothing of audit has entered, so that nothing is known of what the model was sure of: "
            f"`rollout review policy {model} --set audit=0.005`"
        ]
    notes = [
        f"nothing of {reason} is reviewed yet, and {one.entered:,} entered: there is no estimate without"
        for reason, one in sampled.items()
        if one.weight and not one.reviewed
    ]
    if notes:
        return notes
    for reason, one in sampled.items():
        if one.reviewed < MOST * one.entered:
            assumed = "the estimate assumes that what was not looked at is like what was"
            first = ", while the least certain come first, and what versions disagree on"
            order = first if reason == "low_confidence" else ""
            notes.append(f"{one.reviewed:,} of {one.entered:,} of {reason} are reviewed: {assumed}{order}")
        if one.kept_out:
            assumed = "the estimate assumes that they are like those that entered"
            notes.append(f"limits kept out {one.kept_out:,} of {reason}: {assumed}")
    return notes
