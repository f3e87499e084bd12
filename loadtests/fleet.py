"""Three replicas of Rollout behind one port, with one Valkey that may go and come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from loadtests.bodies import Request
from loadtests.ours import BIN, SERVE
from loadtests.proxy import FRONT
from loadtests.servers import ROOT, Server, StartError, free_port, running
from rollout.errors import StoreUnavailableError
from rollout.store import connect, guard
from rollout.valkey_server import server_program

REPLICAS = 3
START_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 180.0
Environment = dict[str, str]


class Valkey:
    """A Valkey on a port of its own, which keeps what it was told when it is killed.

    Args:
        folder: Where its data and its log lie.

    Attributes:
        port: Where it listens on this machine.
        url: The same as a URL.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder.resolve()
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self._process is not None

    def start(self, primary: Valkey | None = None) -> None:
        """Starts it and waits until it answers; as the replica of another, until it has what that one has.

        Raises:
            StartError: If it does not.
        """
        log = self._folder / "valkey.log"
        command = [server_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        # What it has written outlives it; how fast the disk syncs is not what is measured.
        command += ["--appendonly", "yes", "--appendfsync", "no", "--save", "", "--logfile", str(log)]
        if primary is not None:
            command += ["--replicaof", "127.0.0.1", str(primary.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up:
            with contextlib.suppress(StoreUnavailableError):
                if asyncio.run(self._is_complete()):
                    return
            time.sleep(0.02)
        raise StartError(f"Valkey does not answer; {log} says why")

    def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def promote(self) -> None:
        """Makes a replica the primary."""

        async def promote() -> None:
            async with contextlib.aclosing(await connect(self.url)) as client, guard():
                await client.replicaof("NO", "ONE")

        asyncio.run(promote())

    async def _is_complete(self) -> bool:
        # Connecting is refused while it still loads what it was told.
        async with contextlib.aclosing(await connect(self.url)) as client, guard():
            return str((await client.info("replication")).get("master_link_status", "up")) == "up"


class Fleet(NamedTuple):
    """Replicas behind one port.

    Attributes:
        port: Where the load goes.
        replicas: The replicas themselves.
    """

    port: int
    replicas: list[Server]


def run(environment: Environment, *arguments: str) -> None:
    """Runs a command of Rollout.

    Raises:
        StartError: If it fails.
        TimeoutExpired: If it does not end.
    """
    command = [str(BIN / "rollout"), *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_S,
    )
    if done.returncode:
        raise StartError(f"`rollout {' '.join(arguments)}` fails: {done.stderr.strip()}")


@contextlib.contextmanager
def running_fleet(environment: Environment, first: Request, folder: Path) -> Iterator[Fleet]:
    """Runs replicas of one worker each, and HAProxy before them, until the block ends.

    Args:
        environment: Where the bundles and Redis are.
        first: A replica is ready when it answers this.
        folder: Where homes and logs lie.

    Raises:
        StartError: If one does not start.
    """
    with contextlib.ExitStack() as stack:
        starting = []
        for number in range(1, REPLICAS + 1):
            home = folder / f"replica-{number}"
            own = {"ROLLOUT_HOME": str(home.resolve()), "ROLLOUT_WORKERS": "1", "ROLLOUT_GRACE_S": "0"}
            starting.append(running(SERVE, environment | own, first, home.with_suffix(".log")))
        with ThreadPoolExecutor() as threads:
            replicas = list(threads.map(stack.enter_context, starting))
        config = folder / "haproxy.cfg"
        servers = (f"    server r{n} {urlsplit(one.url).netloc}\n" for n, one in enumerate(replicas, start=1))
        config.write_text(FRONT + "".join(servers))
        command = ("haproxy", "-db", "-q", "-f", str(config))
        front = stack.enter_context(running(command, {}, first, folder / "haproxy.log"))
        yield Fleet(urlsplit(front.url).port or 0, replicas)
