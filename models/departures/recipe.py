"""The recipe: what `rollout build models/departures` trains and packs."""

from __future__ import annotations

import operator
from datetime import datetime

from models.departures import baselines, data, v1, v2
from models.departures.reference import from_times
from rollout.bundle.task import Regression
from rollout.training.recipe import Recipe, Version

# Flights; few hours at the airports are as uncertain as that.
TASK = Regression(coverage=0.9, widest=12)

RECIPE = Recipe(
    name="departures",
    inputs={"at": data.AT, "origin": data.ORIGIN},
    load=data.load,
    versions={
        "v1": Version(v1.train, TASK, v1.HYPERPARAMETERS, reference=from_times(datetime.weekday)),
        "v2": Version(v2.train, TASK, v2.HYPERPARAMETERS, reference=from_times(operator.attrgetter("day"))),
    },
    baselines={"mean": baselines.mean, "mean_of_hour_and_origin": baselines.mean_of_hour_and_origin},
)
