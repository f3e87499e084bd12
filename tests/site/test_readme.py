"""The README and the tutorials, in their order: everybody begins with the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s import kubectl_here
from tests.k8s.rendering import kubectl
from tests.site.blocks import Walk, copy_bundles, tree

__all__ = ["tree"]
TUTORIALS = ("app-developer", "sre", "reviewer", "ml-engineer")


@pytest.mark.timeout(1800)
def test_every_block_runs(tree: Path) -> None:
    copy_bundles(tree, "v2")  # v1 is built by the demo
    there = tree.parent / "cluster"
    there.mkdir()
    cluster = kubectl_here.install(there, kubectl(), "local") | {"USER": "ada"}
    with Walk(tree, cluster) as reader:
        assert reader.read("README.md") >= 5
        for page in TUTORIALS:
            assert reader.read(f"docs/tutorials/{page}.md") >= 5
        for page in ("bentoml", "canary"):
            assert reader.read(f"docs/how-to/{page}.md") >= 2


def test_the_tree_that_is_served_is_the_readmes_tree(tree: Path) -> None:
    """The copy is whole: what git does not know is missing there, as it would be for a new user."""
    assert (tree / "Makefile").exists()
    assert not (tree / ".rollout").exists()
