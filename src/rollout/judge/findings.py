"""What the evidence says about each question of a policy: an interval, and on which side of a limit it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from rollout.judge.client_sums import as_arm, design_effect, difference
from rollout.judge.disagreements import accuracy_difference
from rollout.judge.evidence import Disagreements, Outcomes, Stage, TrialEvidence
from rollout.judge.policy import ACCURACY, REVIEWED, Policy
from rollout.judge.sequences import asymptotic_mean, least_difference, proportion
from rollout.words import plural

# Requests at which the sequences of failures are narrowest: those that fail should be seen soon.
TUNED_FOR = 300

State = Literal["missing", "open", "cleared", "broken"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a question.

    Attributes:
        question: The metric's or guardrail's name.
        state: ``cleared`` where it allows a promotion, ``broken`` where it demands a rollback, ``open`` where
            nothing is sure yet, ``missing`` where nothing is known.
        estimate: The challenger's less control's; of fallbacks, the challenger's alone.
        low: What is surely below it.
        high: What is surely above it. Of both, that which would clear the question errs with ``alpha``, and the
            other with its part of that.
        limit: Where it may not pass: from above for the metric and numbers, from below for the rest.
        detail: All that in a sentence.
    """

    question: str
    state: State
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float
    detail: str


def find(evidence: TrialEvidence, policy: Policy) -> list[Finding]:
    """Answers each question of a policy, the metric first."""
    guards = policy.guardrails
    found = [_metric(evidence, policy), _failures(evidence, policy)]
    if guards.fallbacks is not None:
        found.append(_fallbacks(evidence, policy, guards.fallbacks))
    if guards.late_ms is not None:
        what = f"share of answers over {guards.late_ms:g} ms"
        found.append(_compared("late", what, evidence.outcomes.get("late"), guards.late, policy, sign=-1))
    for name, margin in guards.numbers.items():
        found.append(_compared(name, name, evidence.outcomes.get(name), -margin, policy))
    return found


def _metric(evidence: TrialEvidence, policy: Policy) -> Finding:
    limit = policy.margin if policy.aim == "better" else -policy.margin
    if policy.compare == "disagreements":
        return _disagreements(evidence.disagreements, limit, policy)
    if policy.compare == "reviews":
        what = f"{policy.metric} by reviewed rows"
        return _compared(policy.metric, what, evidence.outcomes.get(REVIEWED), limit, policy)
    return _compared(policy.metric, policy.metric, evidence.outcomes.get(policy.metric), limit, policy)


def _state(*, cleared: bool, broken: bool) -> State:
    return "broken" if broken else "cleared" if cleared else "open"


def _compared(
    question: str, what: str, outcomes: Outcomes | None, limit: float, policy: Policy, sign: int = 1
) -> Finding:
    """Compares what clients had, which is to be large, or, with the sign -1, small."""
    arms = {} if outcomes is None else {"control": outcomes.control, "the challenger": outcomes.challenger}
    silent = [name for name, sums in arms.items() if not sums.clients]
    if outcomes is None or silent:
        who = "either arm" if len(silent) != 1 else silent[0]
        return Finding(question=question, state="missing", limit=limit, detail=f"no {what} is known of {who}")
    found = difference(as_arm(outcomes.control), as_arm(outcomes.challenger), is_share=outcomes.is_share)
    rows, mean, variance = float(found.rows), float(found.mean), float(found.variance)
    if not rows or not variance > 0:
        why = "both arms have it in no stage" if not rows else "every row has the same, which says nothing yet"
        return Finding(question=question, state="missing", limit=limit, detail=f"{what}: {why}")
    ends = [
        asymptotic_mean(rows, mean, variance, alpha, policy.tuned_for)
        for alpha in (policy.alpha, policy.alpha_to_break)
    ]
    (to_clear_low, to_clear_high), (to_break_low, to_break_high) = ends
    low, high = (to_clear_low, to_break_high) if sign > 0 else (to_break_low, to_clear_high)
    is_many = min(sums.clients for sums in arms.values()) >= policy.least_clients
    state = _state(
        cleared=is_many and (low > limit if sign > 0 else high < limit),
        # That it is not better by the margin is no reason to be rolled back: that it is worse is.
        broken=is_many and (high < min(limit, 0) if sign > 0 else low > limit),
    )
    words = _interval(mean, low, high, limit, is_share=outcomes.is_share)
    return Finding(
        question=question,
        state=state,
        estimate=mean,
        low=float(low),
        high=float(high),
        limit=limit,
        detail=f"{what} differs from control's by {words}",
    )


def _disagreements(found: Disagreements, limit: float, policy: Policy) -> Finding:
    if not found.labelled:
        what = f"no label is known of {_disagreed(found)}"
        return Finding(question=policy.metric, state="missing", limit=limit, detail=what)
    shared = (found.shadowed, found.disagreed, found.labelled)
    estimate, low, _ = accuracy_difference(*shared, policy.alpha)
    high = accuracy_difference(*shared, policy.alpha_to_break).high
    return Finding(
        question=policy.metric,
        state=_state(cleared=low > limit, broken=high < min(limit, 0)),
        estimate=estimate,
        low=low,
        high=high,
        limit=limit,
        detail=f"accuracy differs from the champion's by {_interval(estimate, low, high, limit)}, by "
        f"{plural(len(found.labelled), 'label')} of {_disagreed(found)}",
    )


def _disagreed(found: Disagreements) -> str:
    return f"{plural(found.disagreed, 'disagreement')} in {plural(found.shadowed, 'row')}"


def doubt_unseen(found: Disagreements, policy: Policy) -> str:
    """Says what speaks against giving the challenger its first clients; empty where nothing does.

    In shadow it scores what the champion could score: each failure is its own. Rows of one request may fail
    together, so that this holds a ramp and rolls nothing back.

    Args:
        found: In shadow.
        policy: What decides.
    """
    asked, limit = found.shadowed + found.failed, policy.guardrails.failures
    if proportion(found.failed, asked, policy.alpha_to_break, TUNED_FOR)[0] > limit:
        failed = f"the challenger failed to score {found.failed:,} of {plural(asked, 'row')} in shadow"
        return f"{failed}, surely more than {limit:.1%}"
    if policy.metric != ACCURACY or not found.labelled:
        return ""
    shared = (found.shadowed, found.disagreed, found.labelled)
    difference = accuracy_difference(*shared, policy.alpha_to_break)
    if difference.high >= min(-policy.margin, 0):
        return ""
    return (
        f"the challenger's accuracy differs by {100 * difference.estimate:+.2f} points in shadow, surely by less "
        f"than {100 * difference.high:+.2f}, by {plural(len(found.labelled), 'label')} of disagreements"
    )


def _failures(evidence: TrialEvidence, policy: Policy) -> Finding:
    """Compares how often the versions fail, by exact sequences of both shares: failures are few."""
    limit = policy.guardrails.failures
    stages = [stage for stage in evidence.stages if stage.control.requests and stage.challenger.requests]
    if not stages:
        failed, requests = evidence.total("challenger", "failures"), evidence.total("challenger", "requests")
        detail = (
            f"the challenger failed in {failed:,} of {plural(requests, 'request')}, and there is no control to "
            "compare it with"
        )
        return Finding(question="failures", state="missing", limit=limit, detail=detail)
    outcomes = evidence.outcomes.get("failures")
    effects = (1.0, 1.0)
    if outcomes is not None:
        effects = (design_effect(outcomes.control), design_effect(outcomes.challenger))
    requests = sum(stage.challenger.requests for stage in stages)
    failed = sum(stage.challenger.failures for stage in stages)
    share, effect = _control_share(stages)
    control = requests / (effect * effects[0])
    challenger = requests / effects[1]

    ours, theirs = (failed / effects[1], challenger), (share * control, control)
    # Broken needs both, a share above the limit and above control's; cleared needs either, which share the error.
    surely = proportion(*ours, policy.alpha_to_break, TUNED_FOR)[0]
    at_most = proportion(*ours, policy.alpha / 2, TUNED_FOR)[1]
    low = least_difference(ours, theirs, policy.alpha_to_break, TUNED_FOR)
    high = -least_difference(theirs, ours, policy.alpha / 2, TUNED_FOR)
    at_control = [sum(getattr(stage.control, name) for stage in stages) for name in ("failures", "requests")]
    return Finding(
        question="failures",
        state=_state(cleared=min(high, at_most) <= limit, broken=low > 0 and surely > limit),
        estimate=failed / requests - share,
        low=low,
        high=high,
        limit=limit,
        detail=f"the challenger failed in {failed:,} of {plural(requests, 'request')} ({failed / requests:.1%}), "
        f"control in {at_control[0]:,} of {at_control[1]:,}",
    )


def _control_share(stages: Sequence[Stage]) -> tuple[float, float]:
    """Returns how often control fails in the challenger's mix of stages, and how much less a request is worth.

    Its stages are weighted by the challenger's requests; unequal weights ``r`` make the rest worth
    ``sum(n r²) / sum(n r)`` times less (Kish, "Survey Sampling", 1965). With arms of one size nothing changes.
    """
    total = sum(stage.challenger.requests for stage in stages)
    weights = [stage.challenger.requests / stage.control.requests for stage in stages]
    failed = math.fsum(weight * stage.control.failures for weight, stage in zip(weights, stages, strict=True))
    squares = math.fsum(weight**2 * stage.control.requests for weight, stage in zip(weights, stages, strict=True))
    return failed / total, squares / total


def _fallbacks(evidence: TrialEvidence, policy: Policy, limit: float) -> Finding:
    late, rows = evidence.total("challenger", "late"), evidence.total("challenger", "rows")
    if not rows:
        detail = "the challenger's clients had no answer yet"
        return Finding(question="fallbacks", state="missing", limit=limit, detail=detail)
    # Rows of a request are late together, and those of a client are alike.
    requests = evidence.total("challenger", "requests")
    effect = max(1.0, (rows - late) / requests) if requests else float(rows)
    if (outcomes := evidence.outcomes.get("fallbacks")) is not None:
        effect = max(effect, design_effect(outcomes.challenger))
    low, _ = proportion(late / effect, rows / effect, policy.alpha_to_break, TUNED_FOR)
    _, high = proportion(late / effect, rows / effect, policy.alpha, TUNED_FOR)
    return Finding(
        question="fallbacks",
        state=_state(cleared=high <= limit, broken=low > limit),
        estimate=late / rows,
        low=low,
        high=high,
        limit=limit,
        detail=f"the champion answered {late:,} of {plural(rows, 'row')} ({late / rows:.1%}) since the "
        "challenger was late or its breaker open",
    )


def _interval(estimate: float, low: float, high: float, limit: float, *, is_share: bool = True) -> str:
    """Writes a difference, between what it lies, and the limit; of shares in points."""
    if is_share:
        at = f"{100 * limit:+.4g}" if limit else "0"
        return f"{100 * estimate:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f}; limit {at})"
    return f"{estimate:+.4g} ({low:+.4g} to {high:+.4g}; limit {limit:+.4g})"
