"""The recipe: what `rollout build models/speech` trains and packs."""

from __future__ import annotations

from models.speech import baselines, data, v1, v2
from models.speech.reference import from_files
from rollout import Classification, Recipe, Version

# With 300 calibration rows of 15 voices nobody could vouch for less.
TASK = Classification(labels=list(data.WORDS), risk=0.05)

RECIPE = Recipe(
    name="speech",
    inputs={"sound": data.SOUND},
    load=data.load,
    versions={
        "v1": Version(v1.train, TASK, v1.HYPERPARAMETERS, reference=from_files),
        "v2": Version(v2.train, TASK, v2.HYPERPARAMETERS, reference=from_files),
    },
    baselines={"nearest duration": baselines.nearest_duration},
)
