"""The verdict: a promotion on proof of everything, a rollback on proof of anything, and otherwise hold, with its reason."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from rollout.judge.client_sums import sum_clients
from rollout.judge.disagreements import Labelled
from rollout.judge.evidence import ArmCounts, Disagreements, Outcomes, Stage, TrialEvidence
from rollout.judge.policy import Guardrails, Policy
from rollout.judge.verdict import Verdict, judge
from tests.judge import cases, simulations
from tests.judge.cases import fair, outcomes

replace = msgspec.structs.replace
POLICY = Policy(margin=0.02)
FINE = ArmCounts(clients=1_000, rows=5_000, requests=5_000, failures=2)


def trial(
    control: ArmCounts = FINE, challenger: ArmCounts = FINE, outside: int = 40_000, share: float = 0.1
) -> TrialEvidence:
    """A stage of two days, of which no outcome is known."""
    stage = Stage(share=share, seconds=180_000, control=control, challenger=challenger, outside=outside)
    return TrialEvidence(stages=(stage,))


def said(verdict: Verdict) -> tuple[str, str]:
    return verdict.verdict, verdict.reason


def test_a_challenger_that_is_proven_as_good_is_promoted() -> None:
    verdict = judge(fair(), POLICY)
    assert said(verdict) == ("promote", "proven")
    assert [(found.question, found.state) for found in verdict.findings] == [
        ("accuracy", "cleared"),
        ("failures", "cleared"),
        ("fallbacks", "cleared"),
    ]
    assert verdict.next_share == 0.25
    low, high = verdict.findings[0].low, verdict.findings[0].high
    assert low is not None
    assert high is not None
    assert -0.02 < low < 0 < high < 0.02


def test_without_a_policy_it_says_what_it_would_do() -> None:
    verdict = judge(fair(clients=4_000, requests=40_000))
    assert said(verdict) == ("hold", "no_policy")
    assert "all is proven: accuracy differs" in verdict.detail


def test_better_by_a_margin_is_more_than_not_worse() -> None:
    equal, better = fair(), fair(accuracy=outcomes(1_000, 1_000, better=0.05))
    policy = replace(POLICY, aim="better")
    assert said(judge(equal, policy)) == ("hold", "undecided")
    assert said(judge(better, policy)) == ("promote", "proven")


def test_a_challenger_that_is_worse_is_rolled_back() -> None:
    verdict = judge(fair(accuracy=outcomes(1_000, 1_000, better=-0.06)), POLICY)
    assert said(verdict) == ("rollback", "worse")
    assert verdict.detail.startswith("accuracy differs from control's by -6.00 points")
    assert verdict.next_share is None
    assert said(judge(fair(accuracy=outcomes(1_000, 1_000, better=-0.03)), POLICY)) == ("hold", "undecided")


@pytest.mark.parametrize(("what"), cases.held())
def test_what_holds_says_why(what: str) -> None:
    reason, verdict = cases.held()[what]
    assert said(verdict) == ("hold", reason)
    assert verdict.waits_for


def unseen(shadowed: int = 5_000, seconds: float = 90_000, **found: object) -> TrialEvidence:
    """A trial in shadow alone."""
    seen = Disagreements(shadowed=shadowed, **found)  # type: ignore[arg-type]
    return TrialEvidence(stages=(Stage(share=0.0, seconds=seconds, outside=10_000),), disagreements=seen)


@pytest.mark.parametrize(
    ("evidence", "reason", "next_share", "says"),
    [
        (unseen(disagreed=200), "in_shadow", 0.01, "nothing speaks against its first clients"),
        (unseen(disagreed=200, labelled=(1, -1) * 30), "in_shadow", 0.01, "nothing speaks against"),
        (unseen(0), "no_data", None, "has scored nothing unseen"),
        (unseen(99), "too_few", None, "scored 99 rows unseen"),
        (unseen(seconds=60), "too_early", None, "lasted 1 min"),
        (unseen(failed=20), "in_shadow", 0.01, "nothing speaks against"),
        (
            unseen(failed=500),
            "in_shadow",
            None,
            "failed to score 500 of 5,500 rows in shadow, surely more than 1.0%",
        ),
        (unseen(0, failed=500), "in_shadow", None, "failed to score 500 of 500 rows"),
        (unseen(disagreed=1_500, labelled=(-1,) * 300), "in_shadow", None, "differs by -30.00 points in shadow"),
    ],
)
def test_a_trial_in_shadow_goes_on_to_its_first_clients_or_says_why_not(
    evidence: TrialEvidence, reason: str, next_share: float | None, says: str
) -> None:
    verdict = judge(evidence, POLICY)
    assert said(verdict) == ("hold", reason)
    assert verdict.next_share == next_share
    assert says in verdict.detail
    assert verdict.waits_for


def test_in_shadow_who_is_proven_worse_by_disagreements_is_rolled_back_and_nobody_is_promoted() -> None:
    policy = replace(POLICY, compare="disagreements")
    worse = unseen(disagreed=1_500, labelled=(-1,) * 300)
    assert said(judge(worse, policy)) == ("rollback", "worse")
    better = judge(unseen(disagreed=1_500, labelled=(1,) * 300), policy)
    assert (said(better), better.next_share) == (("hold", "in_shadow"), 0.01)


def test_a_trial_that_somebody_paused_does_not_go_on_by_itself() -> None:
    had = Stage(share=0.1, seconds=180_000, control=FINE, challenger=FINE, outside=40_000)
    seen = Disagreements(shadowed=9_000)
    paused = TrialEvidence(stages=(had, Stage(share=0.0, seconds=180_000)), disagreements=seen)
    assert judge(paused, POLICY).next_share is None


def test_a_stage_needs_its_time_its_clients_and_its_traffic() -> None:
    assert judge(fair(), POLICY).next_share == 0.25
    young = judge(fair(seconds=3_600), POLICY)
    assert said(young) == ("hold", "too_early")
    assert young.waits_for == "another 23 h"
    few = judge(fair(clients=90, accuracy=outcomes(1_000, 1_000)), POLICY)
    assert said(few) == ("hold", "too_few")
    assert few.waits_for == "10 more clients in each arm"
    dying = judge(replace(fair(), traffic=(100, 110, 90, 3)), POLICY)
    assert {young.next_share, few.next_share, dying.next_share} == {None}
    unlabelled = judge(replace(fair(), outcomes={}), POLICY)
    assert unlabelled.next_share == 0.25, "labels come later than traffic"
    last = replace(fair(), stages=(replace(fair().present, share=0.5),))
    assert said(judge(last, POLICY)) == ("promote", "proven")
    assert judge(last, POLICY).next_share is None


def test_all_alike_is_no_proof_before_many_have_said_so() -> None:
    """As by the rule of three: none of a hundred still leaves three in a hundred."""
    perfect = np.full((150, 2), 10.0)
    sums = sum_clients(perfect)
    verdict = judge(fair(accuracy=Outcomes(control=sums, challenger=sums)), POLICY)
    assert said(verdict) == ("hold", "undecided")
    same = Outcomes(is_share=False, control=sums, challenger=sums)
    assert said(judge(fair(accuracy=same), POLICY)) == ("hold", "labels_missing")


def test_a_challenger_that_fails_is_rolled_back() -> None:
    failing = replace(FINE, failures=250)
    verdict = judge(trial(challenger=failing))
    assert said(verdict) == ("rollback", "failures")
    assert "250 of 5,000 requests (5.0%)" in verdict.detail
    lopsided = trial(replace(FINE, clients=3_000), failing)
    assert judge(lopsided).verdict == "rollback", "whatever the ratio"
    infinite = replace(trial(challenger=failing), outcomes={"accuracy": outcomes(1_000, 1_000, rate=math.inf)})
    assert judge(infinite).verdict == "rollback", "whatever the outcomes"


def test_a_few_failures_are_no_proof() -> None:
    assert judge(trial(challenger=replace(FINE, requests=20, failures=2))).verdict == "hold"
    verdict = judge(trial(challenger=replace(FINE, failures=40)))
    assert verdict.verdict == "hold", "0.8 % is tolerated"
    assert verdict.detail.startswith(
        "the challenger failed in 40 of 5,000 requests, control in 2 of 5,000, which is no proof;"
    )


def test_rows_on_which_both_fail_are_nobodys_fault() -> None:
    assert judge(trial(replace(FINE, failures=200), replace(FINE, failures=250))).verdict == "hold"


def test_one_client_whose_every_request_fails_proves_nothing() -> None:
    """Failures of two hundred clients do, as many of one client do not."""
    rows = np.array([[0.0, 5.0]] * 1_000)
    many, one = rows.copy(), rows.copy()
    many[:200, 0], one[0] = 1, (200, 200)
    counts = replace(FINE, requests=5_000, failures=200)
    for vectors, verdict in ((many, "rollback"), (one, "hold")):
        known = Outcomes(control=sum_clients(rows), challenger=sum_clients(vectors))
        evidence = replace(trial(challenger=counts), outcomes={"failures": known})
        assert judge(evidence, POLICY).verdict == verdict


def test_failures_are_compared_within_stages() -> None:
    """Where both fail as often in each stage, the arms' sizes say nothing."""
    hard = Stage(
        share=0.1,
        control=ArmCounts(clients=100, requests=500, failures=50),
        challenger=ArmCounts(clients=100, requests=4_000, failures=400),
    )
    easy = Stage(
        share=0.2,
        control=ArmCounts(clients=100, requests=4_000, failures=4),
        challenger=ArmCounts(clients=100, requests=500, failures=1),
    )
    assert judge(TrialEvidence(stages=(hard, easy))).verdict == "hold"
    worse = replace(easy, challenger=ArmCounts(clients=100, requests=500, failures=450))
    assert judge(TrialEvidence(stages=(hard, worse))).verdict == "rollback"


def test_without_a_control_nothing_is_proved() -> None:
    verdict = judge(trial(ArmCounts(), replace(FINE, clients=150, failures=2_500)))
    assert said(verdict) == ("hold", "silent_arm")
    assert verdict.detail.endswith(
        "of 150 clients in the trial there are none of control, where about 75 were expected"
    )


def test_what_fails_without_a_control_is_said() -> None:
    """A share of 0, and a rule that pins testers to the challenger."""
    verdict = judge(trial(ArmCounts(), ArmCounts(rows=300, requests=300, failures=300), share=0))
    assert verdict.verdict == "hold"
    assert verdict.detail.startswith(
        "the challenger failed in 300 of 300 requests, there is no control to compare it with;"
    )


def test_what_is_late_proves_nothing_unless_somebody_asked() -> None:
    late = trial(challenger=replace(FINE, requests=100, failures=0, late=4_900))
    assert judge(late).verdict == "hold"
    assert judge(late).detail.startswith(
        "the champion answered 4,900 rows since the challenger was late or its breaker open;"
    )
    verdict = judge(late, POLICY)
    assert said(verdict) == ("rollback", "guardrail")
    assert "4,900 of 5,000 rows (98.0%)" in verdict.detail


def test_guardrails_are_asked_beside_the_metric() -> None:
    policy = Policy(margin=0.02, guardrails=Guardrails(late_ms=200, late=0.02, numbers={"basket": 0.5}))
    calm = outcomes(1_000, 1_000, rate=0.2)
    baskets = replace(outcomes(1_000, 1_000, rate=20.0), is_share=False)
    known = fair().outcomes | {"late": calm, "basket": baskets}
    assert said(judge(replace(fair(), outcomes=known), policy)) == ("promote", "proven")
    for name, worse in (
        ("late", outcomes(1_000, 1_000, rate=0.2, better=0.1)),
        ("basket", replace(outcomes(1_000, 1_000, rate=20.0, better=-1.0), is_share=False)),
    ):
        verdict = judge(replace(fair(), outcomes=known | {name: worse}), policy)
        assert said(verdict) == ("rollback", "guardrail")
        missing = {key: one for key, one in known.items() if key != name}
        unknown = judge(replace(fair(), outcomes=missing), policy)
        assert said(unknown) == ("hold", "labels_missing")
        assert (
            unknown.waits_for
            == {
                "late": "requests that tell of late answers",
                "basket": "reports of basket",
            }[name]
        )


def test_disagreements_can_decide() -> None:
    policy = Policy(compare="disagreements", margin=0.005)

    def labelled(*right: int) -> TrialEvidence:
        found = Disagreements(shadowed=20_000, disagreed=1_000, labelled=tuple(Labelled(one) for one in right))
        return replace(fair(), outcomes={}, disagreements=found)

    assert said(judge(labelled(*[1, 1, 0, -1] * 50), policy)) == ("promote", "proven")
    assert said(judge(labelled(*[-1, -1, 0, -1] * 50), policy)) == ("rollback", "worse")
    assert said(judge(labelled(), policy)) == ("hold", "labels_missing")
    few = judge(labelled(1, -1, 0, 1), policy)
    assert said(few) == ("hold", "undecided")
    assert few.labels_wanted is not None
    assert few.labels_wanted > 0


def test_silence_is_told_by_clients_and_else_by_rows() -> None:
    nobody = ArmCounts()
    assert said(judge(trial(replace(FINE, clients=40), nobody))) == ("hold", "silent_arm")
    verdict = judge(trial(replace(FINE, clients=0), nobody))
    assert said(verdict) == ("hold", "silent_arm"), "with no client known, rows speak for them"
    assert "beside 40,000 rows outside the trial there are none of the challenger" in verdict.detail
    few = replace(FINE, clients=12, rows=200_000)
    assert judge(trial(few, nobody, share=0.01)).reason == "too_few", "many rows of few clients"
    testers = ArmCounts(rows=200_000, requests=200_000)
    assert judge(trial(nobody, testers, 0, 0.01)).reason == "labels_missing", "pinned testers"
    assert judge(trial(nobody, nobody, 100)).reason == "no_data", "10 rows were to be expected"


def test_arms_of_different_size_hold() -> None:
    verdict = judge(fair(clients=1_000), POLICY)
    lopsided = replace(fair().present, challenger=replace(FINE, clients=1_500))
    verdict = judge(replace(fair(), stages=(lopsided,)), POLICY)
    assert said(verdict) == ("hold", "sample_ratio")
    assert verdict.ratio_e_value > 200


def test_counters_that_went_backwards_hold() -> None:
    before = fair(requests=5_000)
    assert said(judge(fair(requests=6_000), POLICY, before)) == ("promote", "proven")
    after = judge(fair(requests=4_000), POLICY, before)
    assert said(after) == ("hold", "impossible")
    assert after.detail == "rows of control in stage 1 went from 5,000 back to 4,000"
    ramped = replace(before, stages=(*before.stages, Stage(share=0.25)))
    assert said(judge(before, POLICY, ramped)) == ("hold", "impossible")
    stages_of_another = replace(ramped, outcomes=fair().outcomes)
    assert said(judge(stages_of_another, POLICY)) == ("hold", "impossible")


def test_identical_models_on_a_drifting_ramp_are_never_rolled_back() -> None:
    assert "rollback" not in simulations.simpson(30, seed=1)


def test_failures_are_seen_soon() -> None:
    assert simulations.requests_until_rollback(0.2, 0.005, 21, seed=1, most=400) <= 150
    assert simulations.requests_until_rollback(0.05, 0.005, 11, seed=2, most=1_500) <= 600


def test_a_fine_challenger_is_hardly_ever_rolled_back() -> None:
    """At the very rate that is tolerated, with a look at each hundred requests."""
    failures = np.random.default_rng(3).binomial(100, 0.01, (40, 50)).cumsum(1).tolist()
    for run in failures:
        for look, count in enumerate(run, start=1):
            arm = ArmCounts(clients=1_000, rows=100 * look, requests=100 * look, failures=count)
            assert judge(trial(replace(arm, failures=0), arm)).verdict == "hold"


def test_looking_often_is_free() -> None:
    """Of 200 identical pairs, 5 % may ever be wrongly promoted or rolled back; 18 of them would be one in a hundred."""
    for margin, worse in ((0.0, 0.0), (0.02, 0.02)):
        assert max(simulations.look_often(200, 100, margin, worse, seed=4)) < 18 / 200
