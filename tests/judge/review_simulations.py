"""Trials that reviews decide, whose truth is known: the hardest rows are looked at first, and one arm has more of them."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rollout.judge.evidence import ArmCounts, Outcomes, Stage, TrialEvidence
from rollout.judge.policy import Policy
from rollout.judge.reviewed import Decided, sum_reviewed
from rollout.judge.verdict import Decision, judge
from tests.judge.simulations import Looked

AUDIT, LEAD = 0.05, 1.0
# How often each arm is unsure, and how often both are right.
UNSURE = {"control": 0.1, "challenger": 0.3}
RIGHT = 0.8
# Of the unsure rows as many are right, whatever the rest: from all where it is nearly sure to a tenth.
RIGHT_IF_UNSURE = 0.55
# People come when so much of the time is over, and decide so many items while one arrives.
BEGIN, SPEED = 0.8, 1.5
SPREAD = 0.05


class Item(NamedTuple):
    """A row of an arm in review, and its place in the queue."""

    row: Decided
    rank: float


def items_of(arm: str, rows: int, random: np.random.Generator, worse: float = 0.0) -> list[Item]:
    """Returns what comes to review of an arm: where it is unsure, it is the less right the less certain it is.

    Times are from 0 to 1; a client has four rows, and is better off than the next.
    """
    at, client = np.sort(random.random(rows)), random.integers(0, rows // 4, rows)
    unsure, uncertainty = random.random(rows) < UNSURE[arm], random.random(rows)
    # The sure rows make up for what the unsure ones lack.
    sure = (RIGHT - RIGHT_IF_UNSURE * UNSURE[arm]) / (1 - UNSURE[arm])
    effects = random.uniform(-SPREAD, SPREAD, rows // 4)[client]
    chance = np.where(unsure, 1 - 0.9 * uncertainty, sure) + np.where(unsure, 0, effects)
    right = random.random(rows) < chance
    right &= random.random(rows) >= worse / RIGHT
    audited = ~unsure & (random.random(rows) < AUDIT)
    found = []
    for place in np.flatnonzero(unsure | audited):
        is_audit = bool(audited[place])
        pi, lead = (AUDIT, 0.0) if is_audit else (1.0, LEAD * uncertainty[place])
        row = Decided(float(at[place]), int(client[place]), 0, float(right[place]), pi, is_audit)
        found.append(Item(row, float(at[place] - lead)))
    return found


def verdict_on(arms: Mapping[str, Sequence[Decided]], until: float, policy: Policy) -> Decision:
    """Returns what the shipped judge says of a trial in which nothing but these labels is known."""
    control, challenger = (sum_reviewed(arms[arm], until, 1) for arm in ("control", "challenger"))
    counts = ArmCounts(clients=3_000, rows=12_000, requests=12_000)
    stage = Stage(share=0.1, seconds=2 * policy.least_s, control=counts, challenger=counts, outside=96_000)
    known = {policy.metric: Outcomes(control=control, challenger=challenger)}
    return judge(TrialEvidence(stages=(stage,), outcomes=known, traffic=(100, 100, 100)), policy).verdict


def decided_at(items: Sequence[Item]) -> list[float]:
    """Returns when each item is decided by people who always take the one of the lowest rank that is there."""
    order = sorted(range(len(items)), key=lambda place: items[place].row.at)
    times, arrived = [0.0] * len(items), 0
    queue: list[tuple[float, int]] = []
    for number in range(len(items)):
        now = BEGIN + (number + 1) / (SPEED * len(items))
        while arrived < len(order) and (items[order[arrived]].row.at <= now or not queue):
            place = order[arrived]
            heapq.heappush(queue, (items[place].rank, place))
            arrived += 1
        _, place = heapq.heappop(queue)
        times[place] = max(now, items[place].row.at)
    return times


def look_often(
    runs: int, looks: int, margin: float, worse: float, rows: int, seed: int, *, takes_all: bool = False
) -> Looked:
    """Looks at trials while people work through the queue.

    Args:
        runs: Trials.
        looks: At each.
        margin: By how much the challenger may be worse.
        worse: By how much it is.
        rows: Of each arm.
        seed: Of chance.
        takes_all: Whether every label that there is counts, and not only those as far as everything is decided.
    """
    promoted = rolled_back = 0
    policy = Policy(margin=margin, aim="not_worse")
    for run in range(runs):
        random = np.random.default_rng((seed, run))
        arms = {arm: items_of(arm, rows, random, worse * (arm == "challenger")) for arm in UNSURE}
        items = [item for its in arms.values() for item in its]
        times, at = np.array(decided_at(items)), np.array([item.row.at for item in items])
        places = np.split(np.arange(len(items)), [len(arms["control"])])
        found = []
        for now in np.linspace(BEGIN, times.max(), looks + 1)[1:]:
            waiting = at[(at <= now) & (times > now)]
            until = np.inf if takes_all else min(now, waiting.min(initial=np.inf))
            labels = {
                arm: [items[place].row for place in its if times[place] <= now]
                for arm, its in zip(arms, places, strict=True)
            }
            found.append(verdict_on(labels, until, policy))
        promoted += "promote" in found
        rolled_back += "rollback" in found
    return Looked(promoted / runs, rolled_back / runs)
