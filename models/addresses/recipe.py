"""The recipe: what `rollout build models/addresses` trains and packs."""

from __future__ import annotations

from models.addresses import baselines, data, v1, v2
from models.addresses.reference import from_strings
from rollout.heads import TokenLabels
from rollout.training.recipe import Recipe, Version


def task(risk: float) -> TokenLabels:
    """Returns the head.

    Args:
        risk: Largest share of wrong spans among the addresses that nobody looks at.
    """
    return TokenLabels(labels=list(data.LABELS), positions=data.TEXT.max_bytes, risk=risk)


RECIPE = Recipe(
    name="addresses",
    inputs={"text": data.TEXT},
    load=data.load,
    versions={
        # Who looks at no more than the next word errs too often for less.
        "v1": Version(v1.train, task(risk=0.25), v1.HYPERPARAMETERS, reference=from_strings),
        "v2": Version(v2.train, task(risk=0.1), v2.HYPERPARAMETERS, reference=from_strings),
    },
    baselines={"by word": baselines.by_word},
)
