"""Labels of review as outcomes of an arm: the hardest rows come first, and that must not decide a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pytest

from rollout.judge.client_sums import as_arm, difference
from rollout.judge.reviewed import Decided, sum_reviewed
from rollout.judge.sequences import asymptotic_mean

RUNS = 4
ALPHA, AUDIT, LEAD = 0.05, 0.05, 1.0
# How often each arm is unsure; both are right in 90 of 100 rows.
UNSURE = {"control": 0.1, "challenger": 0.3}
RIGHT = 0.9


class Item(NamedTuple):
    """A row of an arm in review, and its place in the queue."""

    row: Decided
    rank: float


def items_of(arm: str, rows: int, rng: np.random.Generator) -> list[Item]:
    """Returns what comes to review of an arm: where it is unsure, it is the less right the less certain it is."""
    at, client = np.sort(rng.random(rows)), rng.integers(0, rows // 4, rows)
    unsure = rng.random(rows) < UNSURE[arm]
    uncertainty = rng.random(rows)
    share = UNSURE[arm]
    # Of the unsure rows, 1 - 0.6 u are right, 0.7 in the mean; the sure ones make up for it.
    right = rng.random(rows) < np.where(unsure, 1 - 0.6 * uncertainty, (RIGHT - 0.7 * share) / (1 - share))
    audited = ~unsure & (rng.random(rows) < AUDIT)
    found = []
    for place in np.flatnonzero(unsure | audited):
        is_audit = bool(audited[place])
        pi, lead = (AUDIT, 0.0) if is_audit else (1.0, LEAD * uncertainty[place])
        row = Decided(float(at[place]), int(client[place]), 0, float(right[place]), pi, is_audit)
        found.append(Item(row, float(at[place] - lead)))
    return found


def interval(arms: Mapping[str, Sequence[Decided]], until: float, least: int = 100) -> tuple[float, float]:
    """Returns between what the difference of both arms lies; everything while too little is known."""
    control, challenger = (sum_reviewed(arms[arm], until, 1) for arm in ("control", "challenger"))
    if min(control.clients, challenger.clients) < least:
        return -1.0, 1.0
    found = difference(as_arm(control), as_arm(challenger), is_share=True)
    return asymptotic_mean(float(found.rows), float(found.mean), float(found.variance), ALPHA, tuned_for=5_000)


def decide_first(share: float, rng: np.random.Generator) -> tuple[dict[str, Sequence[Decided]], float]:
    """Lets people decide a part of the queue, in its order; and returns since when something waits."""
    queue = {arm: items_of(arm, 60_000, rng) for arm in UNSURE}
    last = float(np.quantile([item.rank for items in queue.values() for item in items], share))
    waits = min(item.row.at for items in queue.values() for item in items if item.rank > last)
    return {arm: [item.row for item in items if item.rank <= last] for arm, items in queue.items()}, waits


def test_what_is_looked_at_first_does_not_decide() -> None:
    """A part of the queue is decided. All its labels would prove the challenger worse, which it is not."""
    misled, sound = 0, 0
    for seed in range(RUNS):
        decided, waits = decide_first(0.6, np.random.default_rng(seed))
        misled += not interval(decided, np.inf)[0] < 0 < interval(decided, np.inf)[1]
        low, high = interval(decided, waits)
        sound += low < 0 < high
        assert high - low < 0.2, "and something is known"
    assert misled == RUNS
    assert sound == RUNS


@pytest.mark.parametrize("effect", [0.0, -0.1])
def test_the_truth_stays_within_at_all_times(effect: float) -> None:
    """While people go on, over all looks, the interval holds the true difference, and finds one that is there."""
    runs, outside, found = 40, 0, 0
    for seed in range(runs):
        rng = np.random.default_rng(100 + seed)
        rows = {arm: [item.row for item in items_of(arm, 6_000, rng)] for arm in UNSURE}
        spoilt = rng.random(len(rows["challenger"])) < -effect / RIGHT
        rows["challenger"] = [
            one._replace(right=0.0) if bad else one for one, bad in zip(rows["challenger"], spoilt, strict=True)
        ]
        looks = [interval(rows, until) for until in np.linspace(0.1, 1, 15)]
        outside += any(not low <= effect <= high for low, high in looks)
        found += any(high < 0 for _, high in looks)
    assert outside <= ALPHA * runs
    if effect:
        assert found > 0.9 * runs


def test_without_an_audit_nothing_is_known_of_what_it_was_sure_of() -> None:
    assert sum_reviewed([Decided(0, 1, 0, 1.0, 1.0)] * 500, 1, 1).clients == 0


def test_a_few_audits_are_few_clients_however_many_unsure_rows_there_are() -> None:
    unsure = [Decided(0, client, 0, 1.0, 1.0) for client in range(1_000)]
    audits = [Decided(0, 10_000 + client, 0, 1.0, 0.001, is_audit=True) for client in range(5)]
    assert sum_reviewed(unsure + audits, 1, 1).clients == 7
