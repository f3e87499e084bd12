"""Baselines, and looks at rows that are as they were or have moved."""

from __future__ import annotations

import numpy as np

from rollout.judge.baseline import Baseline
from rollout.judge.drift import DriftReport, Window, judge_drift
from rollout.judge.features import Feature, Features, number
from rollout.judge.reweighting import predict_accuracy
from rollout.routing.assignment import Arm
from rollout.routing.drift import ArmDrift, DriftView, view_drift

PACKED_AT = 1_790_000_000.0
NOW = PACKED_AT + 7200
PORTS = ("S", "C", "Q")


def features(rows: int, shift: float = 0.0, seed: int = 0) -> Features:
    """Returns the features of rows; of those that moved, only the age did."""
    random = np.random.default_rng(seed)
    return {
        "passenger.age": number(random.normal(40 + shift, 10, rows), unit="years"),
        "passenger.port": Feature(random.choice(3, rows, p=[0.7, 0.2, 0.1]).astype(np.float64), PORTS),
        "answer.confidence": number(random.uniform(0.5, 1, rows)),
    }


def baseline(rows: int = 1000) -> Baseline:
    """Returns one of rows of which every fifth is answered wrong."""
    right = (np.arange(rows) % 5 > 0).astype(np.float64)
    return Baseline.of(features(rows), right)


def report(rows: int, shift: float = 0.0) -> DriftReport:
    """Judges rows of two minutes."""
    base = baseline()
    windows = [
        Window(NOW - 120 + 60 * minute, 60, base.measure(features(rows // 2, shift, seed=1 + minute)))
        for minute in range(2 * (rows > 0))
    ]
    return judge_drift(base, windows, packed_at=PACKED_AT)


def arm_drift(rows: int, shift: float = 0.0, arm: Arm = "champion", version: str = "v1") -> ArmDrift:
    """Returns what was found of an arm."""
    base = baseline()
    live = base.measure(features(max(rows, 1), shift, seed=9))
    predicted = [predict_accuracy(base, name, live) for name in ("passenger.age", "answer.confidence")]
    found = report(rows, shift)
    moved = [one for one in predicted if one is not None] if found.state == "drifted" else []
    return ArmDrift(arm=arm, version=version, found=found, predicted=moved)


def view(*arms: ArmDrift, bare: tuple[str, ...] = ()) -> DriftView:
    """Returns what a look at the digits found."""
    return view_drift("digits", list(arms), bare)
