"""The comparison runs and every request of it is answered. What it measures is no test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def wrk() -> None:
    """The load generator, installed where that is allowed; without it CI fails and others are told."""
    found = subprocess.run([ROOT / "scripts" / "need", "wrk"], capture_output=True, text=True, check=False)
    if found.returncode:
        assert "CI" not in os.environ, found.stderr
        pytest.skip(found.stderr.strip())


@pytest.mark.usefixtures("wrk")
def test_the_table_is_printed_and_nothing_fails(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "BENTOML_HOME"}
    command = [
        sys.executable,
        "-m",
        "loadtests.bench",
        "--rounds",
        "1",
        "--seconds",
        "1",
        "--results",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if re.match(r"\| \d", line)]
    assert [(row[0], row[1]) for row in rows] == [
        (connections, name)
        for connections in ("1", "32", "128")
        for name in ("Rollout", "bare BentoML", "**ratio**")
    ]
    for row in rows:
        if row[1] != "**ratio**":
            assert float(row[2].replace(",", "")) > 0
            assert row[-1] == "0", "failures"
    assert (tmp_path / "bench.md").read_text() in done.stdout
