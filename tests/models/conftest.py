"""The data and the modules of the recipe that a test file names ``RECIPE``."""

from __future__ import annotations

import pytest
import torch

from rollout import Dataset, Recipe


@pytest.fixture(scope="module")
def dataset(request: pytest.FixtureRequest) -> Dataset:
    recipe: Recipe = request.module.RECIPE
    return recipe.load()


@pytest.fixture(scope="module")
def modules(request: pytest.FixtureRequest, dataset: Dataset) -> dict[str, torch.nn.Module]:
    recipe: Recipe = request.module.RECIPE
    return {version: recipe.train(version, dataset.train, recipe.seed) for version in recipe.versions}
