"""The document on drift says what the code does."""

from __future__ import annotations

import re
from typing import Any, get_args

from rollout.bundle.fields import Field
from rollout.judge.baseline import CATEGORIES, MOST_PLACES
from rollout.judge.drift import ALPHA, LEAST_DISTANCE
from rollout.judge.features import MOST_NUMBERS
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "drift.md").read_text()


def test_its_code_runs() -> None:
    found: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, found)  # noqa: S102


def test_it_names_every_kind_of_field() -> None:
    table = TEXT.split("| --- | --- |\n")[1].split("\n\n")[0]
    assert {kind.__name__ for kind in get_args(Field)} == {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }


def test_its_figures_are_those_of_the_code() -> None:
    for said in (
        f"`alpha`, {ALPHA:.0%}".replace("%", " %"),
        f"`least`, {LEAST_DISTANCE}",
        f"at most {MOST_PLACES:,} numbers",
        f"up to {MOST_NUMBERS} numbers",
        f"the {CATEGORIES} most frequent",
    ):
        assert said in TEXT, said
