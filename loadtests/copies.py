"""A copy of a model in each HTTP worker, or one process that owns it: memory, against handing batches over.

``python -m loadtests.copies NAME:VERSION``; ``docs/gpu.md`` keeps what it printed. Copies are processes that hold
the variant and have scored a batch. A batch is handed over as a worker would: decoded rows through a pipe to the
process that owns the model, and scores back; the time of the model itself is not in it.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path

import click
import numpy as np
import psutil

from loadtests.usage import memory_mib
from rollout.bundle.golden import read_golden
from rollout.bundle.machine import cpu_name
from rollout.bundle.manifest import Manifest
from rollout.bundle.parity import count, take
from rollout.bundle.schema import Arrays
from rollout.bundle.store import open_bundle
from rollout.bundle.verify import load_variant, servable

COPIES = (1, 2, 4)
SIZES = (1, 8, 32)
TIMES = 50


@click.command()
@click.argument("tag")
def main(tag: str) -> None:
    """Measures the bundle TAG with the variant that is first to serve."""
    folder, manifest = open_bundle(tag)
    name = servable(manifest)[0]
    rows = read_golden(folder).inputs
    click.echo(f"{date.today()}, {cpu_name()}: {tag}, {name}\n")
    click.echo("| copies | memory of all |\n| --- | --- |")
    for copies in COPIES:
        click.echo(f"| {copies} | {memory_of(copies, folder, manifest, name, rows):,.0f} MiB |")
    click.echo(
        "\n| rows of a batch | bytes | handed over, median | CPU time, both sides |\n| --- | --- | --- | --- |"
    )
    for size in SIZES:
        batch = take(rows, np.arange(size) % count(rows))
        held = sum(array.nbytes for array in batch.values())
        waited, cpu = handed_over(batch, manifest.task.outputs)
        click.echo(f"| {size} | {held:,} | {waited * 1000:.2f} ms | {cpu * 1000:.2f} ms |")


def memory_of(copies: int, folder: Path, manifest: Manifest, name: str, rows: Arrays) -> float:
    """Returns the MiB of processes that hold a variant each; pages that they share count once."""
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(copies)]
    processes = [
        context.Process(target=_hold, args=(end, folder, manifest, name, take(rows, slice(0, 8))), daemon=True)
        for _, end in ends
    ]
    try:
        for process in processes:
            process.start()
        for own, _ in ends:
            own.recv()
        return sum(memory_mib(psutil.Process(process.pid)) for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.join()


def handed_over(batch: Arrays, outputs: int) -> tuple[float, float]:
    """Returns the median seconds that a batch takes to another process and its scores back, and the CPU time."""
    context = multiprocessing.get_context("spawn")
    own, other = context.Pipe()
    process = context.Process(target=_answer, args=(other, outputs), daemon=True)
    process.start()
    try:
        taken = []
        _ask(own, batch)  # which waits until it is there
        before = _cpu_of_both(process.pid)
        for _ in range(TIMES):
            start = time.perf_counter()
            _ask(own, batch)
            taken.append(time.perf_counter() - start)
        cpu = _cpu_of_both(process.pid) - before
        return statistics.median(taken), cpu / TIMES
    finally:
        process.kill()
        process.join()


def _cpu_of_both(other: int | None) -> float:
    times = psutil.Process(other).cpu_times()
    return time.process_time() + times.user + times.system


def _hold(end: Connection, folder: Path, manifest: Manifest, name: str, rows: Arrays) -> None:
    variant = load_variant(folder, manifest, name, is_trusted=True)
    variant.run(rows)
    end.send("ready")
    end.recv()


def _ask(own: Connection, batch: Arrays) -> None:
    own.send((len(batch), count(batch)))
    for array in batch.values():
        own.send_bytes(np.ascontiguousarray(array).data.cast("B"))
    own.recv_bytes()


def _answer(end: Connection, outputs: int) -> None:
    while True:
        fields, rows = end.recv()
        for _ in range(fields):
            np.frombuffer(end.recv_bytes(), np.uint8)
        end.send_bytes(np.zeros((rows, outputs), np.float32).tobytes())


if __name__ == "__main__":
    main()
