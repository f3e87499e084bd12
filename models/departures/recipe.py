"""The recipe: what `rollout build models/departures` trains and packs."""

from __future__ import annotations

import operator
from datetime import datetime

from models.departures import baselines, data
from models.departures.network import make_fit
from models.departures.reference import from_times
from rollout.heads import Regression
from rollout.layers import DayOfMonth, Weekday
from rollout.training.recipe import Recipe, Version

# Flights; few hours at the airports are as uncertain as that.
TASK = Regression(coverage=0.9, widest=12)

HYPERPARAMETERS = {"hidden": 64}
# Weights of 8 bits move few values by more than a tenth of their interval, 0.21 % of the evaluation part and 2 of
# the 48 raw rows, and the widths decide on review as before.
FLIP_RATE = 0.05
# Version 1 knows the day of the week, version 2 the day of the month in its place.
BY_WEEKDAY, BY_DAY = make_fit(Weekday, days=7), make_fit(DayOfMonth, days=32)

RECIPE = Recipe(
    name="departures",
    inputs={"at": data.AT, "origin": data.ORIGIN},
    load=data.load,
    versions={
        "v1": Version(BY_WEEKDAY, TASK, HYPERPARAMETERS, FLIP_RATE, reference=from_times(datetime.weekday)),
        "v2": Version(BY_DAY, TASK, HYPERPARAMETERS, FLIP_RATE, reference=from_times(operator.attrgetter("day"))),
    },
    baselines={"mean": baselines.mean, "mean_of_hour_and_origin": baselines.mean_of_hour_and_origin},
)
