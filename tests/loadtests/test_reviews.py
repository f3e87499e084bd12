"""``make reviews``, with a small queue."""

from __future__ import annotations

import re

from click.testing import CliRunner

from loadtests.reviews import main

DURABLE = r"durable, [\d,]+ items a second, {} *│ [\d.]+ / [\d.]+ ms"


def test_everything_is_measured() -> None:
    options = ["--items", "2000", "--claims", "30", "--seconds", "0.5"]
    done = CliRunner().invoke(main, options, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert "with 2,000 open items" in done.output
    weights = [
        int(one.replace(",", "")) for one in re.findall(r"memory of an item .*│ ([\d,]+) bytes", done.output)
    ]
    assert len(weights) == 2
    assert 67 < weights[0] < weights[1], "an image weighs more than a line"
    for what in ("claim, p50 / p99", "answer, p50 / p99"):
        assert re.search(rf"{what} *│ [\d.]+ / [\d.]+ ms", done.output)
    for name in ("in groups, as served: p50 / p99", "one at a time: p50 / p99"):
        assert len(re.findall(DURABLE.format(name), done.output)) == 2
