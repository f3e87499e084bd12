"""From evidence to verdict: promote the challenger, roll it back, or hold, and why.

Everything that compares is valid at any time, so a verdict may be asked for as often as anybody likes. What
makes a comparison worthless, and what is not known, holds: no data never promotes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Literal

import msgspec

from rollout.judge.disagreements import labels_wanted
from rollout.judge.evidence import TrialEvidence, impossible
from rollout.judge.findings import Finding, doubt_unseen, find
from rollout.judge.policy import ACCURACY, COUNTED, REVIEWED, UNASKED, Policy
from rollout.judge.sample_ratio import REFUSED, as_counted, e_value
from rollout.notebook import figure, show
from rollout.words import duration, percent, plural

Decision = Literal["promote", "rollback", "hold"]
Reason = Literal[
    "proven",
    "worse",
    "guardrail",
    "failures",
    "no_trial",
    "no_data",
    "silent_arm",
    "sample_ratio",
    "impossible",
    "not_finite",
    "labels_missing",
    "one_arm_labelled",
    "too_few",
    "too_early",
    "in_shadow",
    "dried_up",
    "undecided",
    "no_policy",
]

# Clients of the trial are in either arm with probability 1/2: all of so many are in one once in 2^19 times.
FEWEST_CLIENTS = 20
# Where no client of the trial is known, rows must do, although a few clients may have sent them all.
EXPECTED = 50


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from the evidence.

    Attributes:
        verdict: What to do.
        reason: Why, as a word.
        detail: Why, in a sentence.
        waits_for: What a ``hold`` waits for; empty otherwise.
        findings: What is known about each question of the policy, the metric first.
        next_share: The share of the next stage, where the present one has had its time and nothing speaks
            against it; the first stage follows on the shadow.
        ratio_e_value: Evidence against the arms being of one size; 1 is none.
        labels_wanted: Labels of disagreements that are still to be expected until a verdict; ``None`` where
            nobody knows, or they do not decide.
    """

    verdict: Decision
    reason: Reason
    detail: str
    waits_for: str = ""
    findings: tuple[Finding, ...] = ()
    next_share: float | None = None
    ratio_e_value: float = 1.0
    labels_wanted: int | None = None

    def _repr_html_(self) -> str:
        columns = ("question", "state", "estimate", "low", "high", "limit", "in words")
        rows = [
            (one.question, one.state, *map(figure, (one.estimate, one.low, one.high, one.limit)), one.detail)
            for one in self.findings
        ]
        waits = f"It waits for {self.waits_for}." if self.waits_for else ""
        return show(f"Verdict: {self.verdict}", (self.detail, waits), columns, rows)


NO_TRIAL = Verdict(
    verdict="hold", reason="no_trial", detail="there is no challenger on trial", waits_for="a challenger"
)


def judge(evidence: TrialEvidence, policy: Policy | None = None, before: TrialEvidence | None = None) -> Verdict:
    """Judges a trial.

    In this order: counts that cannot be say nothing; a proof of failure needs no comparison of clients; then
    what makes comparisons worthless holds; then proof that the challenger is worse; then what a promotion is
    missing.

    Args:
        evidence: All that is known.
        policy: What decides; without one nothing is promoted, and what would be is said.
        before: Evidence of an earlier look, to notice counters that went backwards.
    """
    asked = policy or UNASKED
    if wrong := impossible(evidence, before):
        return Verdict(verdict="hold", reason="impossible", detail=wrong, waits_for="counts that can be believed")
    # Outcomes that are no figures say nothing; that the challenger fails is another matter.
    findings = find(evidence if evidence.is_finite else msgspec.structs.replace(evidence, outcomes={}), asked)
    ratio = e_value(as_counted((evidence.present.control.clients, evidence.present.challenger.clients)), (1, 1))
    worthless, unready = list(_worthless(evidence, ratio)), list(_unready(evidence, asked))
    early = list(_early(evidence, asked))
    decided = (
        _rollback(findings, comparable=not worthless)
        or next(iter([*worthless, *unready, *_unseen(evidence, asked, early)]), None)
        or next(_unknown(evidence, findings, asked, early), None)
        or _promote(findings, policy)
    )
    is_held = decided.verdict == "hold"
    return Verdict(
        verdict=decided.verdict,
        reason=decided.reason,
        detail="; ".join([*(_doubts(evidence, findings) if is_held else ()), decided.detail]),
        waits_for=decided.waits_for,
        findings=tuple(findings),
        next_share=None
        if decided.verdict == "rollback" or worthless or unready or early
        else asked.next_stage(evidence.present.share),
        ratio_e_value=ratio,
        labels_wanted=labels_until_verdict(evidence, asked),
    )


def _rollback(findings: Sequence[Finding], *, comparable: bool) -> Verdict | None:
    """Returns the verdict on a challenger that surely fails, or is surely worse where that can be compared."""
    broken = {found.question: found for found in findings if found.state == "broken"}
    if failures := broken.get("failures"):
        detail = f"{failures.detail}, surely more than {failures.limit:.1%} and more than control"
        return Verdict(verdict="rollback", reason="failures", detail=detail)
    if not broken or not comparable:
        return None
    reason: Reason = "worse" if findings[0].question in broken else "guardrail"
    return Verdict(verdict="rollback", reason=reason, detail="; ".join(one.detail for one in broken.values()))


def _promote(findings: Sequence[Finding], policy: Policy | None) -> Verdict:
    """Returns the verdict where every question is cleared."""
    detail = "; ".join(found.detail for found in findings)
    if policy is None:
        return _hold("no_policy", f"all is proven: {detail}", "you to promote it, or a policy")
    return Verdict(verdict="promote", reason="proven", detail=detail)


def _hold(reason: Reason, detail: str, waits_for: str) -> Verdict:
    return Verdict(verdict="hold", reason=reason, detail=detail, waits_for=waits_for)


def _worthless(evidence: TrialEvidence, ratio: float) -> Iterator[Verdict]:
    """Yields what makes comparisons worthless."""
    if not evidence.is_finite:
        yield _hold("not_finite", "a sum of outcomes is infinite or not a number", "outcomes that are numbers")
    if silence := _silence(evidence):
        yield _hold("silent_arm", silence, "somebody to find out why")
    stage = evidence.present
    if ratio >= REFUSED:
        yield _hold(
            "sample_ratio",
            f"control has {plural(stage.control.clients, 'client')} and the challenger "
            f"{stage.challenger.clients:,}, which should be as many (e-value {ratio:.3g}): something loses "
            "clients of one arm",
            "somebody to find out what loses them",
        )


def _silence(evidence: TrialEvidence) -> str:
    """Says which arm should have been heard of, if one should."""
    stage = evidence.present
    arms = {"control": stage.control, "the challenger": stage.challenger}
    if clients := stage.control.clients + stage.challenger.clients:
        silent = [name for name, arm in arms.items() if not arm.clients]
        what = f"of {plural(clients, 'client')} in the trial"
        expected, is_enough = clients / 2, clients >= FEWEST_CLIENTS
    else:
        silent = [name for name, arm in arms.items() if not arm.rows]
        what, expected = f"beside {plural(stage.outside, 'row')} outside the trial", stage.share * stage.outside
        is_enough = expected >= EXPECTED
    if not silent or not is_enough:
        return ""
    return f"{what} there are none of {' or '.join(silent)}, where about {expected:.0f} were expected"


def _unready(evidence: TrialEvidence, policy: Policy) -> Iterator[Verdict]:
    """Yields why there is too little traffic to say anything."""
    if evidence.is_shadow:
        if not evidence.disagreements.shadowed + evidence.disagreements.failed:
            yield _hold("no_data", "no client has the challenger, and it has scored nothing unseen", "traffic")
        if doubt := doubt_unseen(evidence.disagreements, policy):
            yield _hold("in_shadow", doubt, "a better version, or you to go on all the same")
        return
    if not any(
        evidence.total(arm, "rows") + evidence.total(arm, "requests") for arm in ("control", "challenger")
    ):
        yield _hold("no_data", "no client of the trial was answered yet", "traffic")
    if evidence.has_dried_up:
        usual = median(evidence.traffic[:-1])
        detail = f"{plural(evidence.traffic[-1], 'row')} came lately in the trial, where {usual:,.0f} are usual"
        yield _hold("dried_up", detail, "traffic")
    if (requests := evidence.total("challenger", "requests")) < policy.least_clients:
        more = policy.least_clients - requests
        detail = f"the challenger had {plural(requests, 'request')}, which is too few"
        yield _hold("too_few", detail, f"{plural(more, 'more request')} to the challenger")


def _early(evidence: TrialEvidence, policy: Policy) -> Iterator[Verdict]:
    """Yields what the present stage needs to have had."""
    stage = evidence.present
    clients = min(stage.control.clients, stage.challenger.clients)
    if evidence.is_shadow and (rows := evidence.disagreements.shadowed) < policy.least_clients:
        more = policy.least_clients - rows
        detail = f"the challenger scored {plural(rows, 'row')} unseen"
        yield _hold("too_few", detail, f"{plural(more, 'more row')} in shadow")
    elif not evidence.is_shadow and clients < policy.least_clients:
        more = policy.least_clients - clients
        detail = f"in this stage an arm has {plural(clients, 'client')} so far"
        yield _hold("too_few", detail, f"{plural(more, 'more client')} in each arm")
    if stage.seconds < policy.least_s:
        lasted, left = int(stage.seconds), math.ceil(policy.least_s - stage.seconds)
        yield _hold("too_early", f"this stage has lasted {duration(lasted)}", f"another {duration(left)}")


def _unseen(evidence: TrialEvidence, policy: Policy, early: Sequence[Verdict]) -> Iterator[Verdict]:
    """Yields what a trial that is in shadow alone waits for: everything else takes clients."""
    if not evidence.is_shadow:
        return
    yield from early
    found = evidence.disagreements
    detail = (
        f"the challenger scored {plural(found.shadowed, 'row')} unseen and decided {found.disagreed:,} of them "
        "otherwise; "
        "nothing speaks against its first clients"
    )
    first = policy.next_stage(0.0) or 0
    yield _hold("in_shadow", detail, f"a first share of {percent(first)}, by itself if the policy steps the ramp")


def _unknown(
    evidence: TrialEvidence, findings: Sequence[Finding], policy: Policy, early: Sequence[Verdict]
) -> Iterator[Verdict]:
    """Yields what is not known, what comes with time, and what is not sure."""
    for found in findings:
        if found.state == "missing":
            is_reviewed = found is findings[0] and policy.compare == "reviews"
            outcomes = evidence.outcomes.get(REVIEWED if is_reviewed else found.question)
            is_one = outcomes is not None and bool(outcomes.control.clients) != bool(outcomes.challenger.clients)
            reason: Reason = "one_arm_labelled" if is_one else "labels_missing"
            yield _hold(reason, found.detail, _source(found.question))
    yield from early
    for found in findings:
        if found.state == "open":
            yield _hold("undecided", found.detail, f"more evidence of {found.question}")


def _source(question: str) -> str:
    """Says what a question that nobody can answer yet is answered from."""
    if question == ACCURACY:
        return "labels"
    if question in COUNTED:
        return f"requests that tell of {'late answers' if question == 'late' else question}"
    return f"reports of {question}"


def labels_until_verdict(evidence: TrialEvidence, policy: Policy) -> int | None:
    """Returns how many more labels of disagreements are to be expected; ``None`` where they do not decide."""
    if policy.compare != "disagreements":
        return None
    found = evidence.disagreements
    limit = policy.margin if policy.aim == "better" else -policy.margin
    return labels_wanted(found.shadowed, found.disagreed, found.labelled, policy.alpha_to_break, limit)


def _doubts(evidence: TrialEvidence, findings: Sequence[Finding]) -> Iterator[str]:
    """Says what speaks against the challenger without proving it."""
    failures, requests = evidence.total("challenger", "failures"), evidence.total("challenger", "requests")
    is_cleared = any(found.question == "failures" and found.state == "cleared" for found in findings)
    if failures and not is_cleared:
        known = evidence.total("control", "requests")
        beside = (
            f"control in {evidence.total('control', 'failures'):,} of {known:,}, which is no proof"
            if known
            else "there is no control to compare it with"
        )
        yield f"the challenger failed in {failures:,} of {plural(requests, 'request')}, {beside}"
    if late := evidence.total("challenger", "late"):
        yield f"the champion answered {plural(late, 'row')} since the challenger was late or its breaker open"
