"""Real Spark and real Ray: a job that is killed in the middle and started again answers every row once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.tables import digits
from rollout.errors import ConfigError
from rollout.job.plan import Plan, goes_on, prepare
from rollout.job.scorer import open_scorer
from tests.conftest import ROOT, need
from tests.job.engines import environment, found

PARTS, ROWS, FILES = 4, 200, 8


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"tests.job.{module}", *map(str, arguments)]


def start(started: list[str], tmp_path: Path) -> subprocess.Popen[bytes]:
    with (tmp_path / "job.log").open("wb") as log:
        return subprocess.Popen(
            started, cwd=ROOT, env=environment(tmp_path), stdout=log, stderr=log, start_new_session=True
        )


def wait(process: subprocess.Popen[bytes], is_so: Callable[[], object], tmp_path: Path) -> None:
    give_up = time.monotonic() + 500
    while not is_so():
        assert process.poll() is None, (tmp_path / "job.log").read_text()
        assert time.monotonic() < give_up, (tmp_path / "job.log").read_text()
        time.sleep(0.02)


def kill_when(is_begun: Callable[[], bool], started: list[str], tmp_path: Path) -> None:
    """Starts a job, and kills it with all its processes as soon as a part of it is done."""
    process = start(started, tmp_path)
    try:
        wait(process, is_begun, tmp_path)
    finally:
        workers = psutil.Process(process.pid).children(recursive=True)  # Ray's have groups of their own
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        process.wait(60)
        assert not psutil.wait_procs(workers, 60)[1]


def run(started: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        started, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr[-6000:]


def expected(table: Any) -> list[dict[str, Any]]:
    """Returns the answers that one process gives, sorted by the key."""
    job = prepare("digits:v1", table.column_names, {"variant": "onnx", "audit": 0.1})
    answers = open_scorer(job.plan, job.archive.read_bytes)(table)
    return sorted(answers.to_pylist(), key=lambda row: row["key"])


@pytest.fixture(scope="module")
def rows(bundles: str) -> Any:
    """Rows of digits in parts; one has no client, and one an image that is none."""
    table = digits(ROWS)
    clients, images = table.column("client_id").to_pylist(), table.column("image").to_pylist()
    clients[7], images[150] = None, [[1]]
    parts = [index * PARTS // ROWS for index in range(ROWS)]
    return pa.table({"client_id": clients, "key": table.column("key"), "image": images, "part": parts})


@pytest.mark.process
@pytest.mark.timeout(1200)
def test_spark_answers_every_row_once_whatever_is_killed(rows: Any, tmp_path: Path) -> None:
    need("java", "openjdk-17-jre-headless")
    pq.write_table(rows, tmp_path / "rows.parquet")
    out = tmp_path / "out"
    job = command("spark_job", tmp_path / "rows.parquet", out)
    first, last = out / "part=0" / "_SUCCESS", out / f"part={PARTS - 1}" / "_SUCCESS"
    kill_when(first.exists, job, tmp_path)
    assert not last.exists()
    written = first.stat().st_mtime_ns
    run(job, tmp_path)
    assert first.stat().st_mtime_ns == written
    assert found(out) == expected(rows)


@pytest.mark.process
@pytest.mark.timeout(1200)
def test_spark_refuses_a_part_whose_rows_it_would_not_find(rows: Any, tmp_path: Path) -> None:
    need("java", "openjdk-17-jre-headless")
    sizes = pa.array([0, 1, 3], pa.int32()).buffers()[1]
    parts = pa.StringArray.from_buffers(2, sizes, pa.py_buffer(b"\xffok"))
    pq.write_table(rows.slice(0, 2).set_column(3, "part", parts), tmp_path / "rows.parquet")
    job = command("spark_job", tmp_path / "rows.parquet", tmp_path / "out")
    done = subprocess.run(
        job, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=500
    )
    assert "ConfigError: part has a value that is in no part" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.process
@pytest.mark.timeout(1200)
def test_ray_answers_every_row_once_whatever_is_killed(rows: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "rows", tmp_path / "out"
    copies = [rows.set_column(1, "key", [[f"{copy}-{index}" for index in range(ROWS)]]) for copy in range(100)]
    whole = pa.concat_tables(copies)
    size = len(whole) // FILES
    for number in range(FILES):
        (source / f"day={number // 2}").mkdir(parents=True, exist_ok=True)
        pq.write_table(whole.slice(number * size, size), source / f"day={number // 2}" / f"{number}.parquet")
    pq.write_table(whole.slice(0, 0), source / "empty.parquet")
    job = command("ray_job", source, out)

    def is_midway() -> bool:
        return bool(answered(out)) and any((out / "_drafts").iterdir())

    kill_when(is_midway, job, tmp_path)
    before = answered(out)
    assert 0 < len(before) < FILES
    assert list((out / "_drafts").iterdir())
    process = start(job, tmp_path)
    wait(process, lambda: answered(out).keys() > before.keys() and any((out / "_drafts").iterdir()), tmp_path)
    actors = [
        one
        for one in psutil.Process(process.pid).children(recursive=True)
        if one.name().startswith("ray::_Writer")
    ]
    actors[0].kill()
    assert process.wait(500) == 0, (tmp_path / "job.log").read_text()
    after = answered(out)
    assert before.items() <= after.items()
    assert {str(file.relative_to(out)) for file in after} == {
        str(file.relative_to(source)) for file in source.rglob("*.parquet")
    }
    assert not any((out / "_drafts").iterdir())
    assert found(out) == expected(whole)


def answered(out: Path) -> dict[Path, int]:
    """Returns which files of answers are there, and since when."""
    return {file: file.stat().st_mtime_ns for file in out.rglob("*.parquet")}


def test_a_job_goes_on_as_it_began_or_not_at_all() -> None:
    begun = Plan(tag="digits:v1", digest="0" * 64, variant="onnx-int8", batch_size=8)
    now = msgspec.structs.replace(begun, variant="onnx", batch_size=64)
    assert goes_on(now, None) == now
    assert goes_on(now, msgspec.json.encode(begun)) == msgspec.structs.replace(now, variant="onnx-int8")
    with pytest.raises(ConfigError, match=r"begun with digest '000.*', and now it is '111"):
        goes_on(msgspec.structs.replace(now, digest="1" * 64), msgspec.json.encode(begun))
