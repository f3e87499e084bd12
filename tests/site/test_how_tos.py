"""The how-tos that bring a model: each is read after `make serve`, as the README has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.site.blocks import Walk, copy_bundles, tree

__all__ = ["tree"]


@pytest.mark.timeout(1800)
def test_their_blocks_run(tree: Path) -> None:
    copy_bundles(tree, "v1", "v2")  # what the demo builds is the README's
    with Walk(tree) as reader:
        reader.type("bash", "make serve\n")
        for page in ("image-model", "tabular", "speech", "several-heads"):
            assert reader.read(f"docs/how-to/{page}.md") >= 2
