"""Two workers that have nothing but a controller, which are killed while a ramp goes up."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from rollout.routing.split import Split
from rollout.routing.splits import read_history, read_split, write_split
from rollout.store import Redis
from tests.conftest import ROOT
from tests.routing.trials import POLICY, SPLIT, feed

# It says when it looks.
WORKER = """
import asyncio, logging, sys
from rollout.config import Settings
from rollout.heads import Classification
from rollout.inference import controller
from rollout.routing import by_itself
from rollout.store import connect
controller.LOOK_EVERY_S, controller.LEASE_S, by_itself.COOLDOWN_S = 0.01, 0.3, 0.0
logging.disable(logging.WARNING)
async def main():
    redis = await connect(sys.argv[1])
    head = Classification(labels=["3", "8"])
    await controller.Controller(redis, "digits", Settings(), lambda: head).run()
asyncio.run(main())
"""
LONGEST_STEP_S = 60


class Ramped(NamedTuple):
    """What became of a ramp.

    Attributes:
        history: Every revision, oldest first.
        killed: How many workers were killed meanwhile.
    """

    history: Sequence[Split]
    killed: int

    def is_each_once(self, shares: Sequence[float]) -> bool:
        """Whether the ramp had these shares, in this order, and nothing else."""
        revisions = [one.revision for one in self.history]
        return [one.share for one in self.history] == list(shares) and revisions == list(
            range(1, len(shares) + 1)
        )


class Workers:
    """Two workers at once, which are killed and started again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.running = [self.start(), self.start()]
        self.killed = 0

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        return subprocess.Popen([sys.executable, "-c", WORKER, self._url], env=environment, text=True)

    def kill(self, place: int) -> None:
        self.running[place].send_signal(signal.SIGKILL)
        self.running[place].wait()
        self.running[place] = self.start()
        self.killed += 1


@contextmanager
def two_workers(url: str) -> Iterator[Workers]:
    """Runs two workers until the block ends."""
    workers = Workers(url)
    try:
        yield workers
    finally:
        for process in workers.running:
            process.kill()
            process.wait()


async def ramp_up(redis: Redis, url: str, shares: Sequence[float], kill_every: int, seed: int) -> Ramped:
    """Lets two workers take a trial up a ramp, one of which is killed at a random moment of some steps.

    Args:
        redis: Connection to an empty Redis.
        url: Where it is.
        shares: Stages of the ramp.
        kill_every: In which steps.
        seed: Of the moments.
    """
    policy = msgspec.structs.replace(POLICY, stages=tuple(shares))
    split = await write_split(redis, "digits", msgspec.structs.replace(SPLIT, share=shares[0], policy=policy))
    chance = random.Random(seed)
    with two_workers(url) as workers:
        for step in range(1, len(shares)):
            await feed(redis, split.revision)
            give_up = time.monotonic() + LONGEST_STEP_S
            if step % kill_every == 0:
                await asyncio.sleep(chance.uniform(0, 0.05))
                workers.kill(step // kill_every % 2)
            while split.revision == step:
                assert time.monotonic() < give_up, split
                await asyncio.sleep(0.002)
                split = await read_split(redis, "digits") or split
        await asyncio.sleep(0.5)  # time to take a step once more
    return Ramped(await read_history(redis, "digits"), workers.killed)
