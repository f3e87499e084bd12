"""Each promise of docs/security.md names tests, and there are such tests."""

from __future__ import annotations

import re

from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()
PROMISES = [" ".join(part.split()) for part in re.findall(r"^- (.*?)(?=^- |^\n|\Z)", TEXT, re.M | re.S)]


def test_each_promise_names_tests_that_exist() -> None:
    assert len(PROMISES) >= 20
    for promise in PROMISES:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise)
        assert named, promise
        for file, name in named:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.M), (file, name)


def test_every_part_says_what_is_not_promised() -> None:
    parts = TEXT.split("\n## ")[1:]
    assert [part.splitlines()[0] for part in parts if "Not promised:" in part] == [
        "Callers",
        "Reviewers and admins",
        "Operators",
        "Those who take bundles of others",
    ]
    assert parts[-1].startswith("How to report a fault")
