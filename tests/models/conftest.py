"""The data and the modules of the recipe that a test file names ``RECIPE``, and the bundles of these modules."""

from __future__ import annotations

import msgspec
import pytest
import torch

from rollout import Dataset, Recipe
from rollout.training.build import build_version


@pytest.fixture(scope="module")
def dataset(request: pytest.FixtureRequest) -> Dataset:
    recipe: Recipe = request.module.RECIPE
    return recipe.load()


@pytest.fixture(scope="module")
def modules(request: pytest.FixtureRequest, dataset: Dataset) -> dict[str, torch.nn.Module]:
    recipe: Recipe = request.module.RECIPE
    return {version: recipe.train(version, dataset.train, recipe.seed) for version in recipe.versions}


@pytest.fixture(scope="module")
def packed(request: pytest.FixtureRequest, modules: dict[str, torch.nn.Module]) -> str:
    """Builds each version as ``rollout build`` does, but for the training, which is done; returns the model."""
    recipe: Recipe = request.module.RECIPE
    for name, module in modules.items():
        trained = recipe.version(name)._replace(train=lambda *_, module=module: module)
        build_version(msgspec.structs.replace(recipe, versions={name: trained}), name, lambda _: None)
    return recipe.name
