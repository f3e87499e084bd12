"""Drift on a model's page: which feature of live rows moved, since when and how far, beside what it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rollout.judge.drift import FeatureDrift
from rollout.routing.assignment import Arm
from rollout.routing.drift import DriftView, describe_predicted, moved_features
from service.console.charts import Bin, paired

# So many features are drawn, and so many are listed of each arm.
DRAWN = 12
LISTED = 40


class Moved(NamedTuple):
    """A feature that moved, as it is drawn.

    Attributes:
        arms: The arms in which it moved.
        found: What was found in the one with the most rows.
        change: Its median, before and now.
        bins: Its histograms, of the evaluation and of live rows; empty for all features together.
    """

    arms: Sequence[Arm]
    found: FeatureDrift
    change: str
    bins: Sequence[Bin]


class Listed(NamedTuple):
    """A feature as a row of the table.

    Attributes:
        arm: The arm whose rows these are.
        found: What was found.
        change: Its median, before and now.
    """

    arm: Arm
    found: FeatureDrift
    change: str


@dataclass(frozen=True, kw_only=True)
class DriftPanel:
    """What is shown of drift.

    Attributes:
        view: What the last look found.
        moved: What moved, as diagrams.
        more: How many more moved.
        listed: Every feature, as far as there is room.
        expected: How right each version is expected to be, in words.
    """

    view: DriftView
    moved: Sequence[Moved]
    more: int
    listed: Sequence[Listed]
    expected: Sequence[tuple[str, str]]


def panel(view: DriftView) -> DriftPanel:
    """Returns what is shown of the last look."""
    moved = [
        Moved(arms, one, _change(one), paired(one.labels, one.expected, one.found))
        for arms, one in moved_features(view.arms)
    ]
    # Control has the champion's version: of two arms with one version, that with more rows says more.
    by_version = {arm.version: arm for arm in sorted(view.arms, key=lambda arm: arm.found.rows)}
    return DriftPanel(
        view=view,
        moved=moved[:DRAWN],
        more=len(moved[DRAWN:]),
        listed=[Listed(arm.arm, one, _change(one)) for arm in view.arms for one in arm.found.features[:LISTED]],
        expected=[
            (version, describe_predicted(one))
            for version, arm in sorted(by_version.items())
            for one in arm.predicted
        ],
    )


def _change(one: FeatureDrift) -> str:
    if one.before is None or one.now is None:
        return ""
    return f"median {one.before:.4g} → {one.now:.4g} {one.unit}".strip()
