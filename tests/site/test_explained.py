"""The blocks of the explanations run, and say what is true."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("page", ["assignment", "review-statistics", "verdicts"])
def test_its_blocks_run(page: str) -> None:
    found: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "explained" / f"{page}.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        assert "assert" in block
        exec(block, found)  # noqa: S102
