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

# The share of rows that a challenger may fail to score, as long as the champion fails on fewer.
TOLERATED = 0.01
# Each look may err with this probability: a look a minute for a month adds up to 0.04.
ERROR = 1e-6
# An arm that should have had so many rows and had none is silent: by chance that happens once in e^50 times.
EXPECTED = 50


class ArmEvidence(NamedTuple):
    """What is known of an arm.

    Attributes:
        clients: Different clients that the hash put there.
        rows: Rows of its clients that were answered, by whichever version.
        asked: Rows that its version was asked to score.
        failures: Rows that it failed to score.
    """

    clients: int
    rows: int
    asked: int
    failures: int


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
        outside: Rows of clients outside the trial that were answered meanwhile.
        control: The champion's arm in the trial.
        challenger: The challenger's.
    """
    low, _ = failure_bounds(challenger.failures, challenger.asked)
    _, high = failure_bounds(control.failures, control.asked)
    if low > max(TOLERATED, high):
        rate = challenger.failures / challenger.asked
        return Verdict(
            "rollback",
            "failures",
            f"the challenger failed on {challenger.failures} of {challenger.asked} rows ({rate:.1%}), surely "
            f"more than {TOLERATED:.0%} and more than control with {control.failures} of {control.asked}",
        )
    if is_mismatch(control.clients, challenger.clients):
        return Verdict(
            "hold",
            "sample_ratio",
            f"control has {control.clients} clients and the challenger {challenger.clients}, which should be as "
            "many: something loses clients of one arm",
        )
    rows = outside + control.rows + challenger.rows
    arms = {"control": control, "the challenger": challenger}
    silent = [name for name, arm in arms.items() if not arm.rows + arm.asked]
    if silent and share * rows >= EXPECTED:
        return Verdict(
            "hold",
            "silent_arm",
            f"of {rows} rows none came from {' or '.join(silent)}, where about {share * rows:.0f} were expected",
        )
    return Verdict(
        "hold", "undecided", "nothing speaks against the challenger; whether it is better is yours to say"
    )


def failure_bounds(failures: int, rows: int) -> tuple[float, float]:
    """Returns the rates of failure that the counts leave possible, each end with an error of at most ``ERROR``.

    ``rows * kl(failures / rows, rate) <= ln(1 / ERROR)``, where ``kl`` is the divergence of two coins (Chernoff,
    "A measure of asymptotic efficiency for tests of a hypothesis based on the sum of observations", 1952).

    Args:
        failures: Rows that failed.
        rows: Rows in all; without any, every rate is possible.

    Example:
        >>> low, high = failure_bounds(30, 1000)
        >>> round(low, 4), round(high, 4)
        (0.0097, 0.0673)
    """
    if not rows:
        return 0.0, 1.0
    observed = failures / rows
    slack = math.log(1 / ERROR) / rows
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
