"""The document on boxes says what the code does."""

from __future__ import annotations

import re
from typing import Any

from rollout.heads import Boxes
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "boxes.md").read_text()


def test_its_code_packs_a_model(bundles: str) -> None:
    found: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        exec(block, found)  # noqa: S102
    manifest = found["manifest"]
    assert manifest.variants.keys() >= {"onnx", "torchscript"}, manifest.left_out
    assert manifest.metrics["average_precision"] > 0.9
    assert manifest.task.review_threshold <= 1


def test_its_tensors_are_those_of_the_head() -> None:
    declared = Boxes(labels=["lamp"], candidates=16, most=3).declared()
    said = re.findall(r"`(\w+)`\s\(`(\w+)`", TEXT.replace("\n", " "))
    assert dict(said) == {name: one.datatype for name, one in declared.items()}
