"""The recipe: what `rollout build models/arrivals` trains and packs."""

from __future__ import annotations

from models.arrivals import baselines, data, v1, v2
from models.arrivals.reference import from_timetable
from rollout.heads import Classification, Heads, Regression
from rollout.training.recipe import Recipe, Version


def task(risk: float) -> Heads:
    """Returns the two heads, of which ``late`` decides between versions.

    Args:
        risk: Largest share of errors about ``late`` among the flights that nobody looks at.
    """
    late = Classification(labels=list(data.LABELS), risk=risk)
    # Minutes; few flights are as uncertain as that.
    minutes = Regression(coverage=0.9, widest=60)
    return Heads(heads={"late": late, "minutes": minutes}, judged_by="late")


RECIPE = Recipe(
    name="arrivals",
    inputs={
        "at": data.AT,
        "origin": data.ORIGIN,
        "destination": data.DESTINATION,
        "carrier": data.CARRIER,
        "delay": data.DELAY,
    },
    load=data.load,
    versions={
        # Who does not know how late a flight left errs too often for less.
        "v1": Version(v1.train, task(risk=0.15), v1.HYPERPARAMETERS, reference=from_timetable),
        "v2": Version(v2.train, task(risk=0.1), v2.HYPERPARAMETERS, reference=from_timetable),
    },
    baselines={"on time": baselines.always_on_time, "as late as it left": baselines.as_late_as_it_left},
)
