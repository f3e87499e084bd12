"""``make soak``: an hour of steady load, after which the memory of the workers must not have grown."""

from __future__ import annotations

import asyncio
import csv
import sys
import time
from pathlib import Path

import click
import psutil
from matplotlib.figure import Figure

from loadtests import open_loop
from loadtests.bodies import Request, cycle
from loadtests.contenders import EVERYTHING_ON
from loadtests.ours import Models
from loadtests.results import SMALL
from loadtests.servers import ROOT
from loadtests.slope import fit_slope
from loadtests.usage import MIB
from loadtests.workers import find_workers

EVERY_S = 10
POISSON = 1.0  # the shape of gamma-distributed gaps that know nothing of each other
# A worker that gains less than this in an hour could run for days on what it has to spare.
LIMIT_MIB_PER_HOUR = 5.0
RUBBISH_EVERY = 20

Curve = list[tuple[float, list[float]]]


@click.command()
@click.option("--minutes", default=60.0, show_default=True, help="How long.")
@click.option("--rate", default=300.0, show_default=True, help="Requests a second.")
@click.option("--results", "folder", default=ROOT / "loadtests" / "results", type=click.Path(path_type=Path))
def main(minutes: float, rate: float, folder: Path) -> None:
    """Keeps up a steady load and tells whether the workers' memory stays flat."""
    folder.mkdir(parents=True, exist_ok=True)
    models = Models(folder / "home")
    models.build(SMALL)
    requests = EVERYTHING_ON.requests(SMALL)
    requests[::RUBBISH_EVERY] = [
        Request(one.path, one.headers, b'{"inputs": []}', status=422) for one in requests[::RUBBISH_EVERY]
    ]
    due = open_loop.schedule(rate, minutes * 60, POISSON)
    with EVERYTHING_ON.running(models, SMALL, folder) as server:
        workers = find_workers(server.process)
        curve, arrivals = asyncio.run(_load_and_watch(server.url, requests, due, workers))
    _write_csv(folder / "soak.csv", curve, workers)
    _draw(folder / "soak.svg", curve)
    print(
        f"{arrivals.requests:,} requests at {arrivals.rate:.0f}/s: p50 {arrivals.p50_ms:.2f} ms, "
        f"p99 {arrivals.p99_ms:.2f} ms, {arrivals.failures} failures"
    )
    warm = [(seconds, sum(mib) / len(mib)) for seconds, mib in curve if seconds >= _warm_up(minutes)]
    slope = fit_slope(*zip(*warm, strict=True))
    verdict = slope.verdict(LIMIT_MIB_PER_HOUR)
    print(
        f"{warm[-1][1]:.1f} MiB a worker, {slope.per_hour:+.1f} MiB an hour "
        f"(95 %: {slope.low:+.1f} to {slope.high:+.1f}; limit {LIMIT_MIB_PER_HOUR:+.1f}): {verdict}"
    )
    sys.exit(verdict == "growing" or arrivals.failures > 0)


def _warm_up(minutes: float) -> float:
    """Returns the seconds in which caches and pools fill."""
    return min(minutes * 60 / 2, 600)


async def _load_and_watch(
    url: str, requests: list[Request], due: open_loop.Times, workers: list[psutil.Process]
) -> tuple[Curve, open_loop.Arrivals]:
    curve: Curve = []
    start = time.monotonic()

    async def watch() -> None:
        while True:
            mib = await asyncio.to_thread(lambda: [one.memory_full_info().uss / MIB for one in workers])
            curve.append((time.monotonic() - start, mib))
            await asyncio.sleep(min(EVERY_S, float(due[-1]) / 40))

    watching = asyncio.create_task(watch())
    arrivals = await open_loop.run(url, cycle(requests), due)
    watching.cancel()
    return curve, arrivals


def _write_csv(file: Path, curve: Curve, workers: list[psutil.Process]) -> None:
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["seconds", *(f"uss_mib_{number + 1}" for number in range(len(workers)))])
        writer.writerows([f"{seconds:.1f}", *(f"{one:.2f}" for one in mib)] for seconds, mib in curve)


def _draw(file: Path, curve: Curve) -> None:
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([seconds / 60 for seconds, _ in curve], [mib for _, mib in curve])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    axes.set_ylabel("MiB, each worker (USS)")
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
