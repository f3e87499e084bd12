"""The recipe: what `rollout build models/digits` trains and packs."""

from __future__ import annotations

from models.digits import baselines, data, v1, v2
from rollout import Classification, Image, Recipe, Version

DIGITS = [str(digit) for digit in range(10)]

RECIPE = Recipe(
    name="digits",
    inputs={"image": Image(height=32, width=32)},
    load=data.load,
    versions={
        # The baseline errs too often for 2 %: with 359 calibration rows nobody could vouch for that.
        "v1": Version(v1.train, Classification(labels=DIGITS, risk=0.05), v1.HYPERPARAMETERS),
        "v2": Version(v2.train, Classification(labels=DIGITS, risk=0.02), v2.HYPERPARAMETERS),
    },
    baselines={
        "always the most frequent digit": baselines.majority_class,
        "nearest centroid": baselines.nearest_centroid,
    },
)
