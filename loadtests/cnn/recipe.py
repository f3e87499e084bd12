"""What `rollout build loadtests/cnn` packs: the same network under two names, for a trial of equals."""

from __future__ import annotations

from loadtests.cnn import model
from models.digits import data
from models.digits.recipe import DIGITS
from models.digits.recipe import RECIPE as SMALL
from rollout import Classification, Recipe, Version

LARGE = Version(model.train, Classification(labels=DIGITS, risk=0.05), model.HYPERPARAMETERS)

RECIPE = Recipe(
    name="digits-cnn",
    inputs=SMALL.inputs,
    load=data.load,
    versions={"v1": LARGE, "v2": LARGE},
    baselines=SMALL.baselines,
)
