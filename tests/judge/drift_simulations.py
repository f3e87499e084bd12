"""Traffic whose truth is known, for the tests of drift: rows of a loan, and what may happen to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from rollout.judge.baseline import Baseline
from rollout.judge.drift import Window, judge_drift
from rollout.judge.features import Feature, Features, number

STEP = 300.0
KINDS = ("new", "known", "lapsed", "other")
Change = Callable[[Features], Features]


def rows(count: int, random: np.random.Generator) -> Features:
    """Draws rows: two numbers that go together, one with a long tail, whole numbers, a category, one that may miss."""
    income = random.normal(size=count)
    spent = 0.7 * income + 0.7 * random.normal(size=count)
    score = random.normal(size=count)
    score[random.random(count) < 0.1] = np.nan
    return {
        "income": number(30_000 * np.exp(income / 2), "€"),
        "spent": number(spent),
        "calls": number(random.poisson(1.5, count)),
        "kind": Feature(random.choice(3, count, p=[0.6, 0.35, 0.05]).astype(float), KINDS),
        "score": number(score),
    }


def scaled(features: Features) -> Features:
    """The income comes in another unit, in which it is a thousand times as much."""
    return features | {"income": number(1_000 * features["income"].values, "€")}


def new_category(features: Features) -> Features:
    """A quarter of the rows are of a kind that was never there."""
    codes = features["kind"].values.copy()
    codes[::4] = 3
    return features | {"kind": Feature(codes, KINDS)}


def dropped(features: Features) -> Features:
    """The score is not sent any more."""
    return features | {"score": number(np.full(len(features["score"].values), np.nan))}


def turned(features: Features) -> Features:
    """Who has more spends less: no number by itself is otherwise."""
    return features | {"spent": number(-features["spent"].values)}


def same(features: Features) -> Features:
    """Nothing happens."""
    return features


def look_often(
    runs: int, looks: int, evaluated: int, rows_a_look: int, seed: int, alpha: float, least: float
) -> float:
    """Returns in which share of runs a look at unchanged traffic ever says that something moved.

    Each run has an evaluation part of its own. A window is one look long; the oldest 40 of 60 become one, as they do
    where live windows are kept.
    """
    random, alarms = np.random.default_rng(seed), 0
    for _ in range(runs):
        baseline = Baseline.of(rows(evaluated, random))
        windows: list[Window] = []
        for look in range(looks):
            vector = baseline.measure(rows(rows_a_look, random))
            windows.append(Window(look * STEP, STEP, vector))
            if len(windows) == 60:
                old = windows[:40]
                whole = np.sum([window.vector for window in old], axis=0)
                windows[:40] = [Window(old[0].start, sum(window.seconds for window in old), whole)]
            if judge_drift(baseline, windows, packed_at=0.0, alpha=alpha, least=least).state == "drifted":
                alarms += 1
                break
    return alarms / runs


def rows_until_seen(
    baseline: Baseline, draw: Callable[[int], Features], change: Change, most: int = 2_000
) -> tuple[int, list[str]]:
    """Returns how many changed rows it takes until a change is told, after 1,000 rows as ever, and what moved.

    Raises:
        AssertionError: If it is told before it happens, or not within so many rows.
    """
    windows = [Window(at * STEP, STEP, baseline.measure(draw(50))) for at in range(20)]
    assert judge_drift(baseline, windows, packed_at=0.0).state == "quiet"
    for count in range(5, most + 1, 5):
        windows.append(Window(len(windows) * STEP, STEP, baseline.measure(change(draw(5)))))
        found = judge_drift(baseline, windows, packed_at=0.0)
        if found.state == "drifted":
            return count, [each.feature for each in found.features if each.moved]
    raise AssertionError(f"not told within {most} rows")


def until_told(change: Change, evaluated: int, runs: int, seed: int) -> tuple[int, int]:
    """Returns the median and the largest number of rows until a change is told."""
    random, counts = np.random.default_rng(seed), []
    for _ in range(runs):
        baseline = Baseline.of(rows(evaluated, random))
        counts.append(rows_until_seen(baseline, partial(rows, random=random), change)[0])
    return int(np.median(counts)), max(counts)
