"""docs/large-jobs.md: its blocks run, each in a process with the engine that it is about."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.tables import digits
from rollout.job.plan import AFTER, BEFORE, Options
from tests.conftest import ROOT, need
from tests.job.engines import environment, found

PAGE = (ROOT / "docs" / "large-jobs.md").read_text()


@pytest.mark.process
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("engine", "out"), [("spark", "answers"), ("ray", "answers-of-ray")])
def test_its_blocks_run(engine: str, out: str, bundles: str, tmp_path: Path) -> None:
    need("java", "openjdk-17-jre-headless")
    rows = digits(60)
    days = pa.array([f"2026-11-{1 + index % 2:02}" for index in range(60)])
    pq.write_table(rows.append_column("day", days), tmp_path / "rows.parquet")
    block = "".join(
        block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if f"rollout.{engine}" in block
    )
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert [row["key"] for row in found(tmp_path / out)] == sorted(rows.column("key").to_pylist())


def test_every_column_and_option_is_on_the_page() -> None:
    for name in (*BEFORE, *AFTER, "keep", "audit", "on_error"):
        assert f"`{name}" in PAGE
    assert {"client_id", "key", "keep", "audit", "on_error"} < set(Options.__annotations__)
