"""The worker processes of ``rollout serve``: forked from one in which the imports are done.

It has no threads and answers nobody. A worker starts in a fifth of the time, the one in the place of another,
too, and what is imported is in memory once.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from socket import socket

import uvicorn._subprocess
from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from rollout.config import Settings
from rollout.errors import ConfigError, RolloutError

# Elsewhere, what is imported may not be forked: https://docs.python.org/3/library/multiprocessing.html
_context = (
    multiprocessing.get_context("forkserver") if sys.platform == "linux" else multiprocessing.get_context("spawn")
)
_context.set_forkserver_preload(["service.preloaded"])
# Before one is tried again that could not start.
AGAIN_S = 10.0

logger = logging.getLogger(__name__)


class Workers(Multiprocess):
    """The workers, each replaced when it ends or hangs.

    For uvicorn, one that cannot start ends all. Here it does so only while no other serves: what workers have in
    memory they serve on, whatever became of it on disk, and the one in the place of another is tried again.

    Args:
        config: Of uvicorn.
        sockets: That all of them listen on.
    """

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        # uvicorn has no setting for how they start. Of its context, typed as spawn's, it only calls Process.
        uvicorn._subprocess.spawn = _context  # type: ignore[assignment]  # any context does
        super().__init__(config, sockets)
        self._again_at: dict[int, float] = {}
        self.could_not_start = False

    def keep_subprocess_alive(self) -> None:
        """Replaces those that have ended or do not answer, and ends all if none of them can start."""
        for place, worker in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if worker.is_alive(timeout=self.config.timeout_worker_healthcheck) or self._waits(place):
                continue
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE and place not in self._again_at:
                self._put_off(place)
                continue
            logger.info("worker %s has ended; another takes its place", worker.pid)
            self._again_at.pop(place, None)
            self.processes[place] = Process(self.config, self.sockets)
            self.processes[place].start()

    def _waits(self, place: int) -> bool:
        return time.monotonic() < self._again_at.get(place, 0)

    def _put_off(self, place: int) -> None:
        pid = self.processes[place].pid
        if any(other.is_ready() for other in self.processes):
            logger.error(
                "worker %s could not start; the others serve, and it is tried again in %d s", pid, AGAIN_S
            )
            self._again_at[place] = time.monotonic() + AGAIN_S
        else:
            self.could_not_start = True
            self.should_exit.set()


def check_bundles(settings: Settings, url: str) -> None:
    """Refuses to start without a champion; a worker would only say so in the middle of its start.

    Args:
        settings: What is to be served.
        url: Of Redis.

    Raises:
        BundleError: If there is nothing to serve, or a champion is refused.
        StoreUnavailableError: If Redis does not answer, and no split was ever seen here.
        ConfigError: If they could not be looked at.
    """
    receiver, sender = _context.Pipe(duplex=False)
    # It has imported the store of bundles already.
    looking = _context.Process(target=_check_bundles, args=(settings, url, sender), daemon=True)
    looking.start()
    sender.close()
    try:
        fault: RolloutError | None = receiver.recv()
    except EOFError:
        raise ConfigError("the bundles could not be looked at; the lines before this one say why") from None
    looking.join()
    if fault is not None:
        raise fault


def _check_bundles(settings: Settings, url: str, sender: Connection) -> None:
    try:
        asyncio.run(_open_champions(settings, url))
    except RolloutError as error:
        sender.send(error)
    else:
        sender.send(None)


async def _open_champions(settings: Settings, url: str) -> None:
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML
    from rollout.inference.served_splits import read_served  # noqa: PLC0415
    from rollout.store import client_of  # noqa: PLC0415

    redis = client_of(url)
    try:
        for name, split in (await read_served(redis, settings)).items():
            open_bundle(f"{name}:{split.champion}", settings.public_key)
    finally:
        await redis.aclose()
