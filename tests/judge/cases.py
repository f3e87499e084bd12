"""Trials without chance: one in which nothing is wrong, and those that have to hold."""

from __future__ import annotations

import msgspec
import numpy as np

from rollout.judge.client_sums import ClientSums, sum_clients
from rollout.judge.evidence import ArmCounts, Outcomes, Stage, TrialEvidence
from rollout.judge.policy import Policy
from rollout.judge.verdict import Reason, Verdict, judge


def outcomes(control: int, challenger: int, rate: float = 0.8, better: float = 0.0) -> Outcomes:
    """Returns what so many clients with ten rows each had, without chance: half of them a little more than the rate."""
    return Outcomes(control=_clients(control, rate), challenger=_clients(challenger, rate + better))


def _clients(count: int, rate: float) -> ClientSums:
    own = rate + np.where(np.arange(count) % 2, 0.1, -0.1)
    return sum_clients(np.stack([10 * own, np.full(count, 10.0)], axis=1))


def fair(
    clients: int = 1_000,
    seconds: float = 90_000,
    failures: int = 2,
    requests: int = 5_000,
    accuracy: Outcomes | None = None,
) -> TrialEvidence:
    """Returns a trial in which nothing is wrong, and the challenger is as good as the champion."""
    counts = ArmCounts(clients=clients, rows=requests, requests=requests, failures=failures)
    known = outcomes(clients, clients) if accuracy is None else accuracy
    stage = Stage(share=0.1, seconds=seconds, control=counts, challenger=counts, outside=8 * requests)
    return TrialEvidence(stages=(stage,), outcomes={"accuracy": known}, traffic=(100, 110, 90, 105))


def held() -> dict[str, tuple[Reason, Verdict]]:
    """Returns what has to hold, with the reason that it should have and the verdict."""
    policy = Policy(margin=0.02)
    trial, replace = fair(), msgspec.structs.replace
    one = replace(trial.present, challenger=ArmCounts())
    three = ArmCounts(clients=2, rows=3, requests=3)
    failed = Stage(share=0.1, control=three, challenger=replace(three, failures=1))
    nan = outcomes(1_000, 1_000, rate=float("nan"))
    cases: dict[str, tuple[Reason, TrialEvidence]] = {
        "no traffic": ("no_data", TrialEvidence(stages=(Stage(share=0.1),))),
        "traffic dying": ("dried_up", replace(trial, traffic=(100, 110, 90, 3))),
        "1 error in 3": ("too_few", TrialEvidence(stages=(failed,))),
        "NaN": ("not_finite", replace(trial, outcomes={"accuracy": nan})),
        "one arm": ("silent_arm", replace(trial, stages=(one,))),
        "labels for one arm only": ("one_arm_labelled", fair(accuracy=outcomes(1_000, 0))),
        "no labels": ("labels_missing", replace(trial, outcomes={})),
        "an hour old": ("too_early", fair(seconds=3_600)),
        "as many failures as requests, and one more": ("impossible", fair(requests=1_000, failures=1_001)),
    }
    return {what: (reason, judge(evidence, policy)) for what, (reason, evidence) in cases.items()}
