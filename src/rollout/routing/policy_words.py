"""The policy of a trial in words."""

from __future__ import annotations

from rollout.judge.policy import ACCURACY, Act, Policy
from rollout.words import duration, listed, percent, plural

LONGEST_HEAD = 40
ACTS: dict[Act, str] = {"step": "steps the ramp", "promote": "promotes", "rollback": "rolls back"}


def describe_policy(policy: Policy | None) -> str:
    """Says what decides a trial, and what happens by itself.

    Example:
        >>> describe_policy(Policy(by_itself=("rollback",), least_s=3600, margin=0, stages=(0.01, 0.1)))
        'accuracy not worse; stages 1 % → 10 %, each 1 h and 100 clients; rolls back by itself'
    """
    if policy is None:
        return "none: nothing happens by itself"
    parts = [_aim(policy), *_guards(policy)]
    ramp = " → ".join(percent(share) for share in policy.stages)
    parts.append(f"stages {ramp}, each {duration(policy.least_s)} and {plural(policy.least_clients, 'client')}")
    acts = [ACTS[act] for act in policy.by_itself]
    parts.append(f"{listed(acts)} by itself" if acts else "nothing happens by itself")
    return "; ".join(parts)


def _aim(policy: Policy) -> str:
    name = policy.head if len(policy.head) <= LONGEST_HEAD else f"{policy.head[: LONGEST_HEAD - 1]}…"
    head = f" of {name}" if name else ""
    where = {"outcomes": "", "reviews": " by reviewed rows", "disagreements": " where both disagree"}
    what = f"{policy.metric}{head}{where[policy.compare]}"
    points = 100 * policy.margin
    unit = f" point{'s' * (points != 1)}"
    by = f"{points:.4g}{unit}" if policy.metric == ACCURACY else f"{policy.margin:.4g}"
    if not policy.margin:
        return f"{what} {'better' if policy.aim == 'better' else 'not worse'}"
    return f"{what} better by at least {by}" if policy.aim == "better" else f"{what} not worse by more than {by}"


def _guards(policy: Policy) -> list[str]:
    guards = policy.guardrails
    parts = []
    if guards.late_ms is not None:
        parts.append(f"at most {percent(guards.late)} more answers over {guards.late_ms:g} ms")
    return parts + [f"{name} falls by at most {margin:g}" for name, margin in guards.numbers.items()]
