"""Drift: what the last look at live rows found, as the worker that looks keeps it for everybody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from rollout.clock import utc_now
from rollout.judge.drift import TOGETHER, DriftReport, FeatureDrift, State
from rollout.judge.reweighting import PredictedAccuracy
from rollout.keys import Keys
from rollout.routing.assignment import Arm
from rollout.routing.drift_windows import KEPT_S
from rollout.store import Redis, decode_stored, guard

# So many features that moved are told in one sentence.
TOLD = 3
# Where nothing is known of more rows than that, no figure is given.
MOSTLY = 0.5


class ArmDrift(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of the rows of an arm.

    Attributes:
        arm: The arm.
        version: The version that answered them.
        found: How each feature of them lies to those that the version was evaluated on.
        predicted: How often the version is expected to be right since something moved, by different features.
    """

    arm: Arm
    version: str
    found: DriftReport
    predicted: list[PredictedAccuracy] = []


class DriftView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether live rows look like those that a model was evaluated on.

    Attributes:
        model: The model.
        at: When that was looked at, ISO 8601.
        state: ``drifted`` if anything moved for certain in any arm; ``too_few`` while the rows of none would show
            it; ``quiet`` otherwise.
        detail: The same in a sentence.
        arms: What was found of each arm.
        notes: What is missing, in sentences.
    """

    model: str
    at: str
    state: State
    detail: str
    arms: list[ArmDrift] = []
    notes: list[str] = []

    @property
    def moved(self) -> list[tuple[ArmDrift, FeatureDrift]]:
        """What moved, and in which arm."""
        return [(arm, one) for arm in self.arms for one in arm.found.features if one.moved]


class MovedFeature(NamedTuple):
    """A feature that moved.

    Attributes:
        arms: The arms in which it moved.
        found: What was found in the one with the most rows since then.
    """

    arms: list[Arm]
    found: FeatureDrift


def moved_features(arms: Sequence[ArmDrift]) -> list[MovedFeature]:
    """Returns what moved in any arm, all features together last.

    The arms get rows of one kind: a feature is told once, by the arm that knows most of it.
    """
    moved: dict[str, MovedFeature] = {}
    for arm in arms:
        for one in arm.found.features:
            if one.moved:
                others, known = moved.get(one.feature, MovedFeature([], one))
                moved[one.feature] = MovedFeature([*others, arm.arm], max(known, one, key=lambda each: each.rows))
    return sorted(moved.values(), key=lambda each: each.found.feature == TOGETHER)


def view_drift(model: str, arms: list[ArmDrift], bare: Sequence[str]) -> DriftView:
    """Puts together what a look found.

    Args:
        model: The model.
        arms: Those whose version has a baseline.
        bare: The bundles that have none.
    """
    notes = [f"{tag} was packed without a baseline: pack it anew to see drift of its rows" for tag in bare]
    states = {arm.found.state for arm in arms}
    moved = moved_features(arms)
    rows = sum(arm.found.rows for arm in arms)
    state: State
    if moved:
        told = [each.found.detail.rstrip(".") for each in moved]
        more = f"; and {len(told) - TOLD} more" if len(told) > TOLD else ""
        state, detail = "drifted", "; ".join(told[:TOLD]) + more
    elif "quiet" in states:
        state, detail = "quiet", f"nothing speaks for a change in {rows:,} rows"
    else:
        state, detail = "too_few", f"{rows:,} rows were looked at in the last 35 days: too few to notice a change"
    return DriftView(model=model, at=utc_now(), state=state, detail=detail, arms=arms, notes=notes)


def describe_predicted(predicted: PredictedAccuracy) -> str:
    """Says how right a model is expected to be since something moved, and from what that is told."""
    rows = (
        f"{predicted.reviewed:,} reviewed rows and of the evaluation" if predicted.reviewed else "the evaluation"
    )
    known = f"{predicted.feature} of {rows}"
    if predicted.unknown > MOSTLY:
        lacking = f"{100 * predicted.unknown:.0f} % of these rows"
        return f"by {known}, nothing is known of {lacking}: have some of them reviewed"
    interval = f"95 %: {100 * predicted.low:.1f} to {100 * predicted.high:.1f} %"
    return (
        f"expected to be right on {100 * predicted.estimate:.1f} % of these rows ({interval}; "
        f"{100 * predicted.before:.1f} % in the evaluation), by {known}"
    )


async def keep_drift(redis: Redis, view: DriftView) -> None:
    """Keeps what a look found.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        await redis.set(Keys(view.model).drift_report, msgspec.json.encode(view), ex=KEPT_S)


async def read_drift(redis: Redis, model: str) -> DriftView:
    """Returns what the last look found.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        found = await redis.get(Keys(model).drift_report)
    if found is None:
        nobody = "no worker has looked yet: one that serves it does, within a minute"
        return DriftView(model=model, at=utc_now(), state="too_few", detail=nobody)
    return decode_stored(found, DriftView, Keys(model).drift_report)
