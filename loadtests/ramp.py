"""``make ramp``: a million requests through three replicas while a trial is ramped and Redis goes and comes back.

Every answer is checked: none fails, no client gets two arms under one revision of the split, and each client gets
the arm that the split of that revision gives it.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path

import click
import msgspec

from loadtests.callers import MODEL, Part, Tally, make_request, send, share_progress
from loadtests.fleet import Environment, Fleet, Valkey, run, running_fleet
from loadtests.ours import RECIPES
from loadtests.ramp_report import Change, Outcome, show
from loadtests.servers import ROOT, Server
from rollout.routing.split import Split
from rollout.routing.splits import read_history
from rollout.store import connect

# The challenger's share during each fifth of the requests; without one, Redis is gone.
STEPS = (0.01, 0.1, 0.5, None, 0.01)
PATIENCE_S = 10.0
LOOK_EVERY_S = 0.02
RESULTS = ROOT / "loadtests" / "results" / "ramp"


@click.command()
@click.option("--requests", default=1_000_000, show_default=True, help="How many.")
@click.option("--clients", default=20_000, show_default=True, help="Whose.")
@click.option("--rate", default=0.0, help="Requests a second, at most; by default as many as are answered.")
@click.option("--processes", default=2, show_default=True, help="Processes that send them.")
@click.option("--store", type=click.Path(path_type=Path), help="Bundle store with digits; built by default.")
@click.option("--results", "folder", default=RESULTS, type=click.Path(path_type=Path))
def main(requests: int, clients: int, rate: float, processes: int, store: Path | None, folder: Path) -> None:
    """Ramps a trial under load, checks every answer, and tells what is wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    shutil.rmtree(folder, ignore_errors=True)
    valkey = Valkey(folder / "valkey")
    environment = {
        "BENTOML_HOME": str((store or folder / "bentoml").resolve()),
        "BENTOML_DO_NOT_TRACK": "True",
        "ROLLOUT_HOME": str((folder / "home").resolve()),
        "ROLLOUT_REDIS_URL": valkey.url,
    }
    if store is None:
        run(environment, "build", RECIPES[MODEL])
    try:
        valkey.start()
        trial = ("--champion", "v1", "--challenger", "v2", "--share", str(STEPS[0]))
        run(environment, "split", "set", MODEL, *trial)
        with running_fleet(environment, make_request(), folder) as fleet:
            parts = [
                Part(n, range(n, clients, processes), requests // processes, rate / processes, fleet.port)
                for n in range(processes)
            ]
            outcome = _load_and_ramp(fleet, valkey, environment, parts)
    finally:
        valkey.kill()
    sys.exit(show(outcome, clients))


def _load_and_ramp(fleet: Fleet, valkey: Valkey, environment: Environment, parts: Sequence[Part]) -> Outcome:
    context = get_context("fork")  # a new process would first import torch, for the images
    counts = context.Array("q", len(parts))
    outcome = Outcome(requests=sum(part.requests for part in parts))
    with context.Pool(len(parts), share_progress, (counts,)) as pool:
        sending = [pool.apply_async(send, (part,)) for part in parts]
        for number, share in enumerate(STEPS[1:], start=1):
            _wait_for(outcome.requests * number // len(STEPS), counts, sending)
            if share is None:
                valkey.kill()
                gone_at = time.monotonic()
                continue
            if not valkey.is_running:
                valkey.start()
                outcome.without_redis = time.monotonic() - gone_at
            outcome.changes.append(_change(fleet, valkey, environment, share))
        outcome.tallies = [part.get() for part in sending]
    outcome.ended_at = [_revision(replica) for replica in fleet.replicas]
    outcome.splits = _splits(valkey)
    return outcome


def _wait_for(requests: int, counts: SynchronizedArray[int], sending: Sequence[AsyncResult[Tally]]) -> None:
    """Waits until so many requests were sent."""
    while sum(counts[:]) < requests:
        for part in sending:
            if part.ready():
                part.get()
        time.sleep(LOOK_EVERY_S)


def _change(fleet: Fleet, valkey: Valkey, environment: Environment, share: float) -> Change:
    """Changes the share, and measures how long each replica takes from when Redis has it."""
    before = len(_splits(valkey))
    with ThreadPoolExecutor(1) as thread:
        command = thread.submit(run, environment, "split", "ramp", MODEL, str(share), "--yes")
        while not command.done() and len(_splits(valkey)) == before:
            time.sleep(LOOK_EVERY_S)
        changed_at = time.monotonic()
        revision = max(_splits(valkey))
        seconds = [math.inf] * len(fleet.replicas)
        while math.inf in seconds and time.monotonic() - changed_at < PATIENCE_S:
            for index, replica in enumerate(fleet.replicas):
                if seconds[index] == math.inf and _revision(replica) == revision:
                    seconds[index] = time.monotonic() - changed_at
            time.sleep(LOOK_EVERY_S)
        command.result()
    return Change(revision, seconds)


def _splits(valkey: Valkey) -> dict[int, Split]:
    """Reads the splits of all revisions from Redis."""

    async def read() -> list[Split]:
        async with aclosing(await connect(valkey.url)) as redis:
            return await read_history(redis, MODEL)

    return {split.revision: split for split in asyncio.run(read())}


def _revision(replica: Server) -> int:
    """Asks a replica for the revision that it serves."""
    with urllib.request.urlopen(f"{replica.url}/v1/models/{MODEL}", timeout=PATIENCE_S) as response:  # noqa: S310
        found: int = msgspec.json.decode(response.read())["split"]["revision"]
    return found


if __name__ == "__main__":
    main()
