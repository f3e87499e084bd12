"""From evidence to verdict: is the challenger fit to stay on trial?

It says ``rollback`` on proof that the challenger fails, and ``hold`` otherwise: whether it is better is for
people to say, who then promote it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from rollout.judge.sample_ratio import is_mismatch

Decision = Literal["promote", "rollback", "hold"]
Reason = Literal["no_trial", "failures", "sample_ratio", "silent_arm", "undecided"]

# The share of requests in which a challenger may fail, as long as the champion fails in fewer.
TOLERATED = 0.01
# Each look may err with this probability: a look a minute for a month adds up to 0.04.
ERROR = 1e-6
# Clients of the trial are in either arm with probability 1/2: all of so many are in one once in 2^19 times.
FEWEST_CLIENTS = 20
# Where no client of the trial is known, rows must do, although a few clients may have sent them all.
EXPECTED = 50


class ArmEvidence(NamedTuple):
    """What is known of an arm.

    Attributes:
        clients: Different clients that the hash put there, under the present share.
        rows: Rows of its clients that were answered since then, by whichever version.
        requests: Requests in which its version attempted any row, since these bundles are on trial.
        failures: Those of them in which it failed on a row, by an error of its own.
        late: Rows that the champion answered because its version was late or its breaker open. They prove
            nothing: the champion's own arm has more time.
    """

    clients: int
    rows: int
    requests: int
    failures: int
    late: int


class Verdict(NamedTuple):
    """What follows from the evidence.

    Attributes:
        verdict: What to do.
        reason: Why, as a word.
        detail: Why, in a sentence.
    """

    verdict: Decision
    reason: Reason
    detail: str


def judge(share: float, outside: int, control: ArmEvidence, challenger: ArmEvidence) -> Verdict:
    """Judges a trial.

    A proof of failure comes first; then whatever makes comparisons worthless.

    Args:
        share: Share of the clients that should be in each arm, 0 to 0.5.
        outside: Rows of clients outside the trial that were answered since the share is what it is.
        control: The champion's arm in the trial.
        challenger: The challenger's.
    """
    low, _ = failure_bounds(challenger.failures, challenger.requests)
    _, high = failure_bounds(control.failures, control.requests)
    if low > max(TOLERATED, high):
        rate = challenger.failures / challenger.requests
        return Verdict(
            "rollback",
            "failures",
            f"the challenger failed in {challenger.failures} of {challenger.requests} requests ({rate:.1%}), "
            f"surely more than {TOLERATED:.0%} and more than control with {control.failures} of "
            f"{control.requests}",
        )
    if is_mismatch(control.clients, challenger.clients):
        return Verdict(
            "hold",
            "sample_ratio",
            f"control has {control.clients} clients and the challenger {challenger.clients}, which should be as "
            "many: something loses clients of one arm",
        )
    if silence := _silence(share, outside, control, challenger):
        return Verdict("hold", "silent_arm", silence)
    return Verdict("hold", "undecided", f"{_doubts(control, challenger)}; whether it is better is yours to say")


def _silence(share: float, outside: int, control: ArmEvidence, challenger: ArmEvidence) -> str:
    """Says which arm should have been heard of, if one should."""
    arms = {"control": control, "the challenger": challenger}
    if clients := control.clients + challenger.clients:
        silent = [name for name, arm in arms.items() if not arm.clients]
        what, expected, is_enough = f"of {clients} clients in the trial", clients / 2, clients >= FEWEST_CLIENTS
    else:
        silent = [name for name, arm in arms.items() if not arm.rows]
        what, expected = f"beside {outside} rows outside the trial", share * outside
        is_enough = expected >= EXPECTED
    if not silent or not is_enough:
        return ""
    return f"{what} there are none of {' or '.join(silent)}, where about {expected:.0f} were expected"


def _doubts(control: ArmEvidence, challenger: ArmEvidence) -> str:
    """Says what speaks against the challenger without proving it."""
    doubts = []
    if challenger.failures:
        beside = (
            f"control in {control.failures} of {control.requests}, which is no proof"
            if control.requests
            else "there is no control to compare it with"
        )
        doubts.append(
            f"the challenger failed in {challenger.failures} of {challenger.requests} requests, {beside}"
        )
    if challenger.late:
        doubts.append(
            f"the champion answered {challenger.late} rows since the challenger was late or its breaker open"
        )
    return "; ".join(doubts) or "nothing speaks against the challenger"


def failure_bounds(failures: int, requests: int) -> tuple[float, float]:
    """Returns the rates of failure that the counts leave possible, each end with an error of at most ``ERROR``.

    ``requests * kl(failures / requests, rate) <= ln(1 / ERROR)``, where ``kl`` is the divergence of two coins
    (Chernoff, "A measure of asymptotic efficiency for tests of a hypothesis based on the sum of observations",
    1952).

    Args:
        failures: Requests that failed.
        requests: Requests in all; without any, every rate is possible.

    Example:
        >>> low, high = failure_bounds(30, 1000)
        >>> round(low, 4), round(high, 4)
        (0.0097, 0.0673)
    """
    if not requests:
        return 0.0, 1.0
    observed = failures / requests
    slack = math.log(1 / ERROR) / requests
    return _furthest(observed, 0.0, slack), _furthest(observed, 1.0, slack)


def _furthest(observed: float, end: float, slack: float) -> float:
    """Finds the rate between the observed one and an end whose divergence is the slack, by bisection."""
    near, far = observed, end
    for _ in range(50):
        middle = (near + far) / 2
        near, far = (middle, far) if _divergence(observed, middle) <= slack else (near, middle)
    return near


def _divergence(observed: float, rate: float) -> float:
    return sum(
        part * math.log(part / other) if part else 0.0
        for part, other in ((observed, rate), (1 - observed, 1 - rate))
    )
