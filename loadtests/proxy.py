"""HAProxy before the replicas, and its list of them, which is changed while it runs."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path

from loadtests.bodies import Request

# A request that reached no replica goes to another one; an answer, whatever its status, is passed on as it is.
FRONT = """
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
    monitor-uri /proxy
    default_backend replicas
backend replicas
"""
IS_UP = Request("/proxy", {}, b"")
# A prediction may be asked for twice: client and key make it the same one, and its review item the same item. So
# one that a replica took along when it died is sent to another, and so is one that hangs for twice the time after
# which the service itself gives up.
AGAIN = """
    timeout server 2s
    retry-on conn-failure empty-response response-timeout
"""
API = """
global
    stats socket {} level admin
"""
# Redis is whichever of the two calls itself the primary; connections to one that is no longer are ended.
REDIS = """
frontend redis-front
    mode tcp
    timeout client 1h
    bind 127.0.0.1:{}
    default_backend redis
backend redis
    mode tcp
    timeout server 1h
    option tcp-check
    tcp-check send info\\ replication\\r\\n
    tcp-check expect string role:master
    default-server check inter 500ms fall 1 rise 1 on-marked-down shutdown-sessions
"""

DONE = ("", "New server registered.")


class ProxyError(Exception):
    """HAProxy refuses a command; the message says which, and why."""


class Endpoints:
    """The replicas that get requests, as the proxy has been told.

    Args:
        api: The socket on which HAProxy takes commands.
    """

    def __init__(self, api: Path) -> None:
        self._api = api
        self._known: set[str] = set()

    async def put(self, name: str, port: int, *, is_ready: bool) -> None:
        """Sends new requests to a replica, or no more of them; what it has under way it answers."""
        if is_ready and name not in self._known:
            self._known.add(name)
            await self._do(f"add server replicas/{name} 127.0.0.1:{port} check inter 500ms fall 2 rise 1")
            await self._do(f"enable health replicas/{name}")
            await self._do(f"enable server replicas/{name}")
        elif name in self._known:
            await self._do(f"set server replicas/{name} state {'ready' if is_ready else 'drain'}")

    async def remove(self, name: str) -> None:
        """Forgets a replica."""
        if name in self._known:
            self._known.remove(name)
            await self._do(f"set server replicas/{name} state maint")

    async def sent_again(self) -> int:
        """Counts the requests that were sent to a second replica."""
        lines = (await self._tell("show stat")).removeprefix("# ").splitlines()
        return sum(
            int(row["wredis"])
            for row in csv.DictReader(lines)
            if (row["pxname"], row["svname"]) == ("replicas", "BACKEND")
        )

    async def _do(self, command: str) -> None:
        answer = await self._tell(command)
        if answer not in DONE:
            raise ProxyError(f"HAProxy: {command}: {answer}")

    async def _tell(self, command: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self._api)
        writer.write(f"{command}\n".encode())
        answer = (await reader.read()).decode().strip()
        writer.close()
        return answer
