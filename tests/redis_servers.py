"""Redis as production has it: servers with options of their own, a primary that Sentinels watch, a cluster."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from rollout.valkey_server import server_program
from tests.conftest import free_port

PRIMARY = "digits-primary"
# After so long without an answer a server counts as gone.
GONE_MS = 600
ADDRESS = "127.0.0.1"


def wait_until(what: Callable[[], Any], seconds: float = 20) -> None:
    """Waits until something holds; while Redis does not answer, it does not."""
    give_up = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError, redis.exceptions.RedisClusterException, OSError):
            if what():
                return
        assert time.monotonic() < give_up, "it does not come about"
        time.sleep(0.02)


class RedisServer:
    """A server on a port of its own, which keeps its data when it is killed.

    Args:
        folder: Where its data and its log lie.
        options: Of its command line, without the dashes.
        program: What is run; the Valkey of the wheel unless it is given.
        port: Where it listens; any free port unless it is given.
    """

    def __init__(self, folder: Path, program: str = "", port: int = 0, **options: str) -> None:
        folder.mkdir(parents=True)
        self.port = port or free_port()
        self.log = folder / "server.log"
        ports = {"port": str(self.port)} | options
        self._command = [program or server_program(), *options.pop("mode", "").split()]
        common = {"bind": ADDRESS, "dir": str(folder), "logfile": str(self.log)}
        for name, value in (common | ports).items():
            if name != "mode":
                self._command += [f"--{name.replace('_', '-')}", *value.split(" ")]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it takes connections."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

        def listens() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            with socket.create_connection((ADDRESS, self.port), 1):
                return True

        wait_until(listens)

    def kill(self) -> None:
        """Ends it at once, as when its machine goes."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def call(self, *command: Any, **options: Any) -> Any:
        """Runs a command on it."""
        with redis.Redis(host=ADDRESS, port=self.port, socket_timeout=10, **options) as client:
            return client.execute_command(*command)
