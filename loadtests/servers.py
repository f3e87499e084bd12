"""Servers under test: started on a free loopback port, ended with everything that they started."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from loadtests.bodies import Request

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 20


class StartError(Exception):
    """A server did not start; the message says why."""


class Server(NamedTuple):
    """A running server.

    Attributes:
        url: Where it listens, without a path.
        process: What was started; others may hang below it.
    """

    url: str
    process: psutil.Popen


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], first: Request, log: Path
) -> Iterator[Server]:
    """Runs a server until the block ends.

    Args:
        command: Its command; ``{port}`` stands for the port.
        environment: Added to that of this process; ``BENCH_PORT`` is the port.
        first: The server is ready when it answers this.
        log: Where its output goes.

    Raises:
        StartError: If it ends, or does not answer in time.
    """
    port = free_port()
    server_environment = os.environ | environment | {"BENCH_PORT": str(port)}
    with log.open("w") as file:
        process = psutil.Popen(
            [part.format(port=port) for part in command],
            cwd=ROOT,
            env=server_environment,
            stdout=file,
            stderr=file,
        )
        server = Server(f"http://127.0.0.1:{port}", process)
        try:
            _wait_ready(server, first, log)
            yield server
        finally:
            _stop(process)


def ask(url: str, request: Request) -> bytes:
    """Sends one request and returns the answer's body."""
    sent = urllib.request.Request(url + request.path, request.body, dict(request.headers))  # noqa: S310
    with urllib.request.urlopen(sent, timeout=10) as response:  # noqa: S310
        answer: bytes = response.read()
    return answer


def free_port() -> int:
    """Returns a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_ready(server: Server, first: Request, log: Path) -> None:
    give_up = time.monotonic() + START_TIMEOUT_S
    why = "does not answer"
    while time.monotonic() < give_up:
        try:
            ask(server.url, first)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                why = f"answers {error.code}: {error.read()[:200].decode(errors='replace')}"
            if server.process.poll() is not None:
                why = "ends at once"
                break
            time.sleep(0.1)
        else:
            return
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()] or lines or ["its log is empty"]
    raise StartError(f"{why}; {telling[-1]}")


def _stop(process: psutil.Process) -> None:
    """Asks the process to end, then ends what is left below it."""
    below = []
    with contextlib.suppress(psutil.NoSuchProcess):
        below = process.children(recursive=True)
        process.terminate()
    _, alive = psutil.wait_procs([process], STOP_TIMEOUT_S)
    _, orphans = psutil.wait_procs(below, 1)
    for left in [*alive, *orphans]:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    psutil.wait_procs([*alive, *orphans], STOP_TIMEOUT_S)
