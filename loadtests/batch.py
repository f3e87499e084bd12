"""``make bench-batch``: the same table through Spark, Ray, ``rollout predict`` and onnxruntime alone.

Each has a process of its own, which has started everything before it is measured. They take turns, so that what
else the machine does hits all of them; the first turn of each is not counted. ``docs/large-jobs.md`` keeps what
it printed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import NamedTuple

import click
import psutil
import pyarrow.parquet as pq

from loadtests.batch_child import JOBS, TAG
from loadtests.ours import BIN
from loadtests.servers import ROOT
from loadtests.tables import digits
from loadtests.usage import family
from rollout.bundle.machine import cpu_name
from rollout.cores import usable_cores

PARTS = 4
SAMPLE_S = 0.1
ENGINES = {
    "PYSPARK_PYTHON": sys.executable,  # or its workers take the first python3 of the PATH
    "RAY_AUTH_MODE": "disabled",  # it would leave a token in the home
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "300000",  # on a busy machine
}
WORDS = {
    "onnxruntime": "onnxruntime alone: no checks, no review, label and confidence",
    "predict": "`rollout predict`, to a service of as many workers as cores",
    "spark": "`rollout.spark.predict`, written as Parquet",
    "ray": "`rollout.ray.predict`, written as Parquet",
    "ray-files": "`rollout.ray.predict_to`",
}


class Turn(NamedTuple):
    """One time that a table was answered.

    Attributes:
        seconds: How long it took.
        cpu_seconds: The CPU time of all processes that took part.
    """

    seconds: float
    cpu_seconds: float


class Meter:
    """The CPU time of a process and of all below it, also of those that end meanwhile, to a tenth of a second.

    Args:
        process: The head of the family.
    """

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._seen: dict[psutil.Process, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def read(self) -> float:
        """Returns the seconds so far."""
        self._look()
        return sum(self._seen.values())

    def stop(self) -> None:
        """Looks no more."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._look()

    def _look(self) -> None:
        try:
            found = list(family(self._process))
        except psutil.NoSuchProcess:
            return
        for one in found:
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._seen[one] = max(self._seen.get(one, 0.0), times.user + times.system)


@contextmanager
def contender(name: str, rows: Path, folder: Path) -> Iterator[tuple[psutil.Popen, Meter]]:
    """Starts what answers the table each time that it reads a line, until the block ends."""
    with (folder / f"{name}.log").open("wb") as log:
        process = psutil.Popen(
            [sys.executable, "-m", "loadtests.batch_child", name, str(rows), str(folder / name)],
            cwd=ROOT,
            env=os.environ | ENGINES,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        meter = Meter(process)
        try:
            answer(process, (folder / f"{name}.log"))  # it is ready
            yield process, meter
        finally:
            process.stdin.close()
            try:
                process.wait(60)
            except psutil.TimeoutExpired:
                process.kill()
            meter.stop()


def answer(process: psutil.Popen, log: Path) -> None:
    """Waits until a contender says that it is done.

    Raises:
        RuntimeError: If it ended.
    """
    if not process.stdout.readline():
        raise RuntimeError(log.read_text()[-4000:])


def report(turns: dict[str, list[Turn]], rows: int) -> Iterator[str]:
    """Yields the lines of the table, as docs/large-jobs.md has it."""
    yield f"{rows:,} rows of `digits:v2`, {len(next(iter(turns.values())))} turns, medians; {cpu_name()}, "
    yield f"{usable_cores()} cores; {date.today():%Y-%m-%d}."
    yield ""
    yield "| | rows/s | CPU s per 1,000 rows | times the first |"
    yield "| --- | --- | --- | --- |"
    cpu = {
        name: statistics.median(turn.cpu_seconds for turn in taken) / rows * 1000 for name, taken in turns.items()
    }
    first = next(iter(cpu.values()))
    for name, taken in turns.items():
        rate = rows / statistics.median(turn.seconds for turn in taken)
        yield f"| {WORDS[name]} | {rate:,.0f} | {cpu[name]:.3f} | {cpu[name] / first:.1f} |"


@click.command()
@click.option("--rows", default=20_000, show_default=True, help="Rows of the table.")
@click.option("--turns", default=5, show_default=True, help="How often each is measured.")
@click.option("--only", default=",".join(JOBS), show_default=True, help="Which of them.")
def main(rows: int, turns: int, only: str) -> None:
    """Measure Spark, Ray, `rollout predict` and onnxruntime on one table."""
    os.environ.setdefault("BENTOML_HOME", str(ROOT / "loadtests" / "results" / "batch" / "bentoml"))
    if not Path(os.environ["BENTOML_HOME"], "models", *TAG.split(":")).exists():
        subprocess.run([BIN / "rollout", "build", "models/digits"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="rollout-batch-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        (folder / "rows").mkdir()
        whole = digits(rows)
        size = -(-rows // PARTS)
        for part in range(PARTS):
            pq.write_table(whole.slice(part * size, size), folder / "rows" / f"{part}.parquet")
        running = {
            name: stack.enter_context(contender(name, folder / "rows", folder)) for name in only.split(",")
        }
        found: dict[str, list[Turn]] = {name: [] for name in running}
        for turn in range(turns + 1):
            for name, (process, meter) in running.items():
                cpu, start = meter.read(), time.perf_counter()
                print("go", file=process.stdin, flush=True)
                answer(process, folder / f"{name}.log")
                taken = Turn(time.perf_counter() - start, meter.read() - cpu)
                click.echo(f"{name}: {taken.seconds:.1f} s", err=True)
                if turn:
                    found[name].append(taken)
        print("\n".join(report(found, rows)))


if __name__ == "__main__":
    main()
