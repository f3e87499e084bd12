"""Redis as production has it: servers with settings of their own, a primary that Sentinels watch, a cluster."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisClusterException

from rollout.valkey_server import server_program
from tests.conftest import free_port

ADDRESS = "127.0.0.1"
SLOTS = 16384
PRIMARY = "of-rollout"
# A server that does not answer for so long counts as gone.
GONE_MS = 500


class RedisServer:
    """A server on a port of its own, which keeps its data when it is killed.

    Args:
        folder: Where its data and its log lie.
        settings: Lines of its configuration.
        program: What is run; the Valkey of the wheel unless it is given.
        secure: What a client needs where it speaks TLS only.

    Attributes:
        port: Where it listens.
    """

    def __init__(
        self, folder: Path, *settings: str, program: str = "", secure: dict[str, Any] | None = None
    ) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self.bus_port = free_port()
        self._log = folder / "server.log"
        self._secure = secure or {}
        ports = ["port 0", f"tls-port {self.port}"] if secure else [f"port {self.port}"]
        if "cluster-enabled yes" in settings:
            ports.append(f"cluster-port {self.bus_port}")
        config = folder / "server.conf"
        config.write_text(
            "\n".join([*ports, f"bind {ADDRESS}", f"dir {folder}", f"logfile {self._log}", 'save ""', *settings])
        )
        self._command = [program or server_program(), str(config)]
        if any(line.startswith("sentinel ") for line in settings):
            self._command.append("--sentinel")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"{ADDRESS}:{self.port}"

    def start(self) -> None:
        """Starts it and waits until it takes connections."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

        def listens() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            socket.create_connection((ADDRESS, self.port), 1).close()
            return True

        wait_until(listens)

    def kill(self) -> None:
        """Ends it at once, as when its machine goes."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self, *, thaw: bool = False) -> None:
        """Stops it where it is, or lets it go on; its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT if thaw else signal.SIGSTOP)

    def call(self, *command: Any, **options: Any) -> Any:
        """Runs a command on it."""
        with redis.Redis(host=ADDRESS, port=self.port, socket_timeout=10, **self._secure, **options) as client:
            return client.execute_command(*command)


@contextlib.contextmanager
def running(*servers: RedisServer) -> Iterator[None]:
    """Runs servers until the block ends."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.kill()


def wait_until(what: Callable[[], Any], seconds: float = 120) -> None:
    """Waits until something holds; while Redis does not answer, it does not."""
    give_up = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError, RedisClusterException, OSError):
            if what():
                return
        assert time.monotonic() < give_up, "it does not come about"
        time.sleep(0.02)


def watch(primary: RedisServer, folder: Path, *settings: str, quorum: int = 1, **options: Any) -> RedisServer:
    """Returns a Sentinel that watches a primary."""
    return RedisServer(
        folder,
        f"sentinel monitor {PRIMARY} {ADDRESS} {primary.port} {quorum}",
        f"sentinel down-after-milliseconds {PRIMARY} {GONE_MS}",
        f"sentinel failover-timeout {PRIMARY} 2000",
        *settings,
        **options,
    )


def form_cluster(nodes: Sequence[RedisServer], primaries: int) -> None:
    """Makes running nodes a cluster: primaries with equal parts of the slots, and replicas of one after the other."""
    ids = [node.call("CLUSTER MYID").decode() for node in nodes]
    for node in nodes[1:]:
        nodes[0].call("CLUSTER MEET", ADDRESS, node.port, node.bus_port)
    for place, node in enumerate(nodes[:primaries]):
        first, end = (SLOTS * one // primaries for one in (place, place + 1))
        node.call("CLUSTER ADDSLOTSRANGE", first, end - 1)
    for place, node in enumerate(nodes[primaries:]):
        # Which they first have to hear of.
        wait_until(partial(node.call, "CLUSTER REPLICATE", ids[place % primaries]))

    def is_complete(node: RedisServer) -> bool:
        replicas = str(node.call("CLUSTER NODES")).count("slave")
        return node.call("CLUSTER INFO")["cluster_state"] == "ok" and replicas == len(nodes) - primaries

    for node in nodes:
        wait_until(partial(is_complete, node))


def node_settings(*settings: str) -> tuple[str, ...]:
    """Returns the lines that make a server a node of a cluster."""
    return ("cluster-enabled yes", f"cluster-node-timeout {GONE_MS}", "appendonly yes", *settings)
