"""The recipe: what `rollout build models/languages` trains and packs."""

from __future__ import annotations

from models.languages import baselines, data, v1, v2
from models.languages.reference import from_strings
from rollout.heads import Classification
from rollout.training.recipe import Recipe, Version

LABELS = list(data.LANGUAGES)
# Of 701 rows 0.2 % is one: a single further tie between two languages would decide about the quantized variant.
FLIP_RATE = 0.005

RECIPE = Recipe(
    name="languages",
    inputs={"text": data.TEXT},
    load=data.load,
    versions={
        # Pairs of bytes err too often for 2 %: most texts would go to review.
        "v1": Version(
            v1.train,
            Classification(labels=LABELS, risk=0.05),
            v1.HYPERPARAMETERS,
            FLIP_RATE,
            reference=from_strings,
        ),
        "v2": Version(
            v2.train,
            Classification(labels=LABELS, risk=0.02),
            v2.HYPERPARAMETERS,
            FLIP_RATE,
            reference=from_strings,
        ),
    },
    baselines={"most_frequent": baselines.most_frequent},
)
