"""Every block of docs/heads.md: a head with the scores of a row, and what it answers."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import numpy as np

from rollout.heads.reading import kinds
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "heads.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)


def test_heads_answer_as_the_page_says() -> None:
    names: dict[str, Any] = {}
    for language, block in BLOCKS:
        if language == "python":
            names = {}
            exec(block, names)  # noqa: S102
        else:
            head = names["head"]
            (row,) = head.numbers(np.array([names["scores"]], np.float32)).tolist()
            assert msgspec.json.decode(msgspec.json.encode(head.answer(row)._asdict())) == json.loads(block)
    assert [language for language, _ in BLOCKS] == ["python", "json"] * (len(BLOCKS) // 2)


def test_every_kind_is_in_the_table() -> None:
    table = PAGE.split("\n\n")[2].splitlines()
    rows = {row.split("`")[1]: row for row in table if row.startswith("| `")}
    for kind in kinds():
        if kind.__module__.startswith("rollout."):
            assert f"`{kind.form}`" in rows[kind.__name__]
