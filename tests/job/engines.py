"""What the tests of the engines share: the environment of a job, and the rows that it wrote."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.conftest import ROOT


def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "TMPDIR": str(tmp_path),
        "PYSPARK_PYTHON": sys.executable,  # or a worker takes the first python3 of the PATH
        "RAY_TMPDIR": "/tmp",  # its sockets have long names
        "RAY_agent_register_timeout_ms": "300000",  # beside other tests all takes longer
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",  # it would leave a token in the home
    }


def found(out: Path) -> list[dict[str, Any]]:
    rows = [row for file in out.rglob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist()]
    return sorted(rows, key=lambda row: row["key"])
