"""Clients that check every answer: processes with keep-alive connections that leave the CPU to the servers."""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections import Counter
from multiprocessing.sharedctypes import SynchronizedArray
from typing import NamedTuple, cast

import msgspec
import numpy as np
import uvloop

from loadtests.bodies import Request, images, json_request

MODEL = "digits"
CLIENT = "client-{:05}"
IMAGES = 200
CONNECTIONS = 16  # of each process
LONGEST_S = 15.0  # that an answer may take
AGAIN_S = 0.1
LOOK_EVERY_S = 0.02
END = b"\r\n\r\n"
LENGTH = b"content-length: "

sent_so_far: SynchronizedArray[int]


class Part(NamedTuple):
    """What one process sends.

    Attributes:
        number: Which of the processes it is.
        clients: The numbers of its clients; no other process sends anything for them.
        requests: How many requests.
        rate: Requests a second, at most; 0 for as many as are answered.
        port: Where they go on this machine.
    """

    number: int
    clients: range
    requests: int
    rate: float
    port: int


class Seen(NamedTuple):
    """What a client got; no version where the champion answered in the challenger's place."""

    client: int
    revision: int
    arm: str
    version: str | None


class Tally(msgspec.Struct):
    """What became of the requests.

    Attributes:
        seen: How often each client got what.
        failed: Requests without a right answer, by why.
        seconds: How long each took.
        start: When the first was sent, in ``time.monotonic()``.
        end: When the last was answered.
    """

    seen: Counter[Seen] = msgspec.field(default_factory=Counter)
    failed: Counter[str] = msgspec.field(default_factory=Counter)
    seconds: array[float] = msgspec.field(default_factory=lambda: array("d"))
    start: float = 0.0
    end: float = 0.0


class Answer(msgspec.Struct):
    """What is read of a prediction."""

    client_id: str
    arm: str
    version: str
    revision: int
    fallback: str | None = None


read_answer = msgspec.json.Decoder(Answer).decode


def make_request(client: int = 0, image: int = 0) -> Request:
    """Makes a request of one image of one client; all clients' are of the same length."""
    body = {"client_id": CLIENT.format(client), "inputs": {"image": images()[image].tolist()}}
    return json_request(f"/v1/models/{MODEL}/predict", body)


def share_progress(counts: SynchronizedArray[int]) -> None:
    """Tells a new process where to count the requests that it has sent."""
    global sent_so_far  # noqa: PLW0603  a process can only inherit it
    sent_so_far = counts


def send(part: Part) -> Tally:
    """Sends requests, each for one of the clients at random, and checks the answers."""
    gc.freeze()  # what was imported would be looked through again and again, while answers wait
    return uvloop.run(_Sender(part).run())


class _Sender:
    """What the connections of a process have in common."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.tally = Tally()
        self._sent = 0
        self._bodies = [make_request(0, n).as_bytes().split(CLIENT.format(0).encode()) for n in range(IMAGES)]
        self._clients = np.random.default_rng(part.number).choice(part.clients, part.requests).tolist()

    async def run(self) -> Tally:
        self.tally.start = time.monotonic()
        connections = [_Connection(self) for _ in range(CONNECTIONS)]
        while len(self.tally.seconds) < self.part.requests:
            for connection in connections:
                connection.keep_up()
            await asyncio.sleep(LOOK_EVERY_S)
            sent_so_far[self.part.number] = self._sent
        self.tally.end = time.monotonic()
        for connection in connections:
            connection.close()
        return self.tally

    def due_in(self) -> float:
        """Seconds until the next request is due."""
        if not self.part.rate:
            return 0.0
        return self.tally.start + self._sent / self.part.rate - time.monotonic()

    def next(self) -> tuple[int, bytes] | None:
        """Returns a client and its request, until all were sent."""
        if self._sent == self.part.requests:
            return None
        client: int = self._clients[self._sent]
        before, after = self._bodies[self._sent % IMAGES]
        self._sent += 1
        return client, b"".join((before, CLIENT.format(client).encode(), after))

    def check(self, client: int, status: bytes, body: bytes) -> str:
        """Counts an answer; returns what is wrong with it, if anything is."""
        if status != b"200":
            return f"{status.decode()} {body[:300].decode(errors='replace')}"
        try:
            answer = read_answer(body)
        except msgspec.DecodeError as error:
            return f"no prediction: {error}"
        if answer.client_id != CLIENT.format(client):
            return "the answer to another client"
        version = answer.version if answer.fallback is None else None
        self.tally.seen[Seen(client, answer.revision, answer.arm, version)] += 1
        return ""


class _Connection(asyncio.Protocol):
    """Sends its next request once it has an answer."""

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._client: int | None = None
        self._asked_at = 0.0
        self._data = b""

    def keep_up(self) -> None:
        """Opens the connection where there is none, and closes it where an answer takes too long."""
        if self._transport is None and (self._opening is None or self._opening.done()):
            self._opening = asyncio.get_running_loop().create_task(self._open())
        elif self._client is not None and time.monotonic() - self._asked_at > LONGEST_S:
            self._settle(f"no answer within {LONGEST_S:.0f} s")
            self.close()

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self, "127.0.0.1", self._sender.part.port)
        except OSError as error:
            if self._take() is not None:
                self._settle(f"no connection: {error.strerror}")
            await asyncio.sleep(AGAIN_S)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._ask()

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._data = b""
        if self._timer is not None:
            self._timer.cancel()
        if self._client is not None:
            self._settle("the connection was closed")

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(END)
        if not end:
            return
        head = head.lower()
        if len(body) < int(head.partition(LENGTH)[2].partition(b"\r")[0]):
            return
        self._data = b""
        if self._client is not None:
            self._settle(self._sender.check(self._client, head[9:12], body))
        if self._transport is None:
            return
        if b"connection: close" in head:
            self._transport.close()
        else:
            self._ask()

    def _ask(self) -> None:
        due_in = self._sender.due_in()
        if due_in > 0:
            self._timer = asyncio.get_running_loop().call_later(due_in, self._ask)
        elif (request := self._take()) is not None and self._transport is not None:
            self._transport.write(request)

    def _take(self) -> bytes | None:
        found = self._sender.next()
        if found is None:
            return None
        self._client, request = found
        self._asked_at = time.monotonic()
        return request

    def _settle(self, why: str) -> None:
        self._client = None
        self._sender.tally.seconds.append(time.monotonic() - self._asked_at)
        if why:
            self._sender.tally.failed[why] += 1
