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
from loadtests.servers import ROOT, Server, StartError, free_port, running
from rollout.embedded import server_program
from rollout.errors import StoreUnavailableError
from rollout.store import connect, guard

REPLICAS = 3
START_TIMEOUT_S = 10.0
# A request that reached no replica goes to another one; an answer, whatever its status, is passed on as it is.
HAPROXY = """
global
    maxconn 2000
defaults
    mode http
    balance roundrobin
    timeout connect 1s
    timeout client 75s
    timeout server 30s
    retries 3
    retry-on conn-failure
    option redispatch 1
    option httpchk GET /readyz
    default-server check inter 500ms fall 2 rise 1
frontend front
    bind 127.0.0.1:"$BENCH_PORT"
    default_backend replicas
backend replicas
"""

Environment = dict[str, str]


class Valkey:
    """A Valkey on a port of its own, which keeps what it was told when it is killed.

    Args:
        folder: Where its data and its log lie.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder.resolve()
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self._process is not None

    def start(self) -> None:
        """Starts it and waits until it answers.

        Raises:
            StartError: If it does not.
        """
        log = self._folder / "valkey.log"
        command = [server_program(), "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        # What it has written outlives it; how fast the disk syncs is not what is measured.
        command += ["--appendonly", "yes", "--appendfsync", "no", "--save", "", "--logfile", str(log)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up:
            with contextlib.suppress(StoreUnavailableError):
                asyncio.run(self._ping())
                return
            time.sleep(0.02)
        raise StartError(f"Valkey does not answer; {log} says why")

    def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def _ping(self) -> None:
        async with contextlib.aclosing(await connect(self.url)) as client, guard():
            await client.ping()  # refused while it still loads what it was told


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
    """
    command = [str(BIN / "rollout"), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
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
        config.write_text(HAPROXY + "".join(servers))
        command = ("haproxy", "-db", "-q", "-f", str(config))
        front = stack.enter_context(running(command, {}, first, folder / "haproxy.log"))
        yield Fleet(urlsplit(front.url).port or 0, replicas)
