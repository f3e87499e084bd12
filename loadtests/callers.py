"""Clients that check every answer: processes with keep-alive connections that leave the CPU to the servers."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from array import array
from collections import Counter, deque
from multiprocessing.sharedctypes import SynchronizedArray
from multiprocessing.synchronize import Event
from typing import NamedTuple, cast

import msgspec
import numpy as np
import uvloop
from numpy.typing import NDArray

from loadtests.bodies import Request, images, json_request

MODEL = "digits"
CLIENT = "client-{:05}"
KEY = "key-{:09}"
IMAGES = 200
CONNECTIONS = 16  # of each process
LONGEST_S = 15.0  # that an answer may take
AGAIN_S = 0.1
LOOK_EVERY_S = 0.02
AHEAD = 1000  # clients that are drawn at a time
UNTIL_TOLD = sys.maxsize
END = b"\r\n\r\n"
LENGTH = b"content-length: "

sent_so_far: SynchronizedArray[int]
is_enough: Event | None = None


class Part(NamedTuple):
    """What one process sends.

    Attributes:
        number: Which of the processes it is.
        clients: The numbers of its clients; no other process sends anything for them.
        requests: How many requests, at most.
        rate: Requests a second, at most; 0 for as many as are answered.
        port: Where they go on this machine.
        connections: How many requests may be under way.
        keyed: Whether each has a key of its own.
    """

    number: int
    clients: range
    requests: int
    rate: float
    port: int
    connections: int = CONNECTIONS
    keyed: bool = False


class Seen(NamedTuple):
    """What a client got; no version where the champion answered in the challenger's place."""

    client: int
    revision: int
    arm: str
    version: str | None


class Failure(NamedTuple):
    """A request without a right answer: when that was known, in ``time.monotonic()``, and what went wrong."""

    at: float
    why: str


class Promise(NamedTuple):
    """What an answer said of its review item, ``queued`` or ``deferred``: when it was due, and whose it is."""

    at: float
    client: int
    number: int
    fate: str


class Tally(msgspec.Struct):
    """What became of the requests.

    Attributes:
        seen: How often each client got what.
        spans: For each revision, when the first and the last request were due that were answered under it.
        failures: Requests without a right answer.
        promises: What was said about review items.
        due: When each was due.
        seconds: How long each took from then on.
        start: When the first was sent, in ``time.monotonic()``.
        end: When the last was answered.
    """

    seen: Counter[Seen] = msgspec.field(default_factory=Counter)
    spans: dict[int, tuple[float, float]] = {}
    failures: list[Failure] = []
    promises: list[Promise] = []
    due: array[float] = msgspec.field(default_factory=lambda: array("d"))
    seconds: array[float] = msgspec.field(default_factory=lambda: array("d"))
    start: float = 0.0
    end: float = 0.0

    @property
    def failed(self) -> Counter[str]:
        """Requests without a right answer, by why."""
        return Counter(failure.why for failure in self.failures)


class Answer(msgspec.Struct):
    """What is read of a prediction."""

    client_id: str
    arm: str
    version: str
    revision: int
    fallback: str | None = None
    review: str | None = None


read_answer = msgspec.json.Decoder(Answer).decode


def make_request(client: int = 0, image: int = 0, number: int | None = None) -> Request:
    """Makes a request of one image of one client, with a key if it has a number; all are of the same length."""
    body: dict[str, object] = {"client_id": CLIENT.format(client)}
    if number is not None:
        body["key"] = KEY.format(number)
    return json_request(f"/v1/models/{MODEL}/predict", body | {"inputs": {"image": images()[image].tolist()}})


def share_progress(counts: SynchronizedArray[int], enough: Event | None = None) -> None:
    """Tells a new process where to count the requests that it has sent, and what ends it before all are."""
    global sent_so_far, is_enough
    sent_so_far, is_enough = counts, enough
    # Not the handler of the process that it was forked from: what that raises may be lost, and the pool waits.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def send(part: Part) -> Tally:
    """Sends requests, each for one of the clients at random, and checks the answers."""
    gc.freeze()  # what was imported would be looked through again and again, while answers wait
    return uvloop.run(_Sender(part).run())


class SentRequest(NamedTuple):
    """A request that is under way."""

    due: float
    client: int
    number: int


class _Sender:
    """What the connections of a process have in common."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.tally = Tally()
        self._left = part.requests
        self._sent = 0
        self._bodies = [make_request(0, n, 0 if part.keyed else None).as_bytes() for n in range(IMAGES)]
        self._random = np.random.default_rng(part.number)
        self._clients: NDArray[np.int64] = np.empty(0, np.int64)
        self._idle: deque[_Connection] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> Tally:
        self.tally.start = time.monotonic()
        connections = [_Connection(self) for _ in range(self.part.connections)]
        while self._left or len(self.tally.seconds) < self._sent:
            for connection in connections:
                connection.keep_up()
            await asyncio.sleep(LOOK_EVERY_S)
            sent_so_far[self.part.number] = self._sent
            if is_enough is not None and is_enough.is_set():
                self._left = 0
        self.tally.end = time.monotonic()
        for connection in connections:
            connection.close()
        return self.tally

    def offer(self, connection: _Connection) -> None:
        """Takes a connection that has nothing to do."""
        self._idle.append(connection)
        self._hand_out()

    def withdraw(self, connection: _Connection) -> None:
        """Takes it back: it is closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def _hand_out(self) -> None:
        """Gives out what is due, and comes back when more is."""
        while self._idle and (request := self.take()) is not None:
            self._idle.popleft().ask(*request)
        if self._idle and self._left and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, self._due() - time.monotonic()), self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self._hand_out()

    def take(self) -> tuple[SentRequest, bytes] | None:
        """Returns a request that is due, if one is."""
        due = self._due()
        if not self._left or due > time.monotonic():
            return None
        number = self._sent
        if number % AHEAD == 0:
            self._clients = self._random.choice(self.part.clients, AHEAD)
        client = int(self._clients[number % AHEAD])
        self._sent += 1
        self._left -= 1
        body = self._bodies[number % IMAGES].replace(CLIENT.format(0).encode(), CLIENT.format(client).encode())
        return SentRequest(due, client, number), body.replace(KEY.format(0).encode(), KEY.format(number).encode())

    def _due(self) -> float:
        """When the next request is due."""
        return self.tally.start + self._sent / self.part.rate if self.part.rate else time.monotonic()

    def settle(self, sent: SentRequest, why: str) -> None:
        """Counts a request that is over, and what went wrong with it, if anything did."""
        now = time.monotonic()
        self.tally.due.append(sent.due)
        self.tally.seconds.append(now - sent.due)
        if why:
            self.tally.failures.append(Failure(now, why))

    def check(self, sent: SentRequest, status: bytes, body: bytes) -> str:
        """Counts what a client got; returns what is wrong with it, if anything is."""
        if status != b"200":
            return f"{status.decode()} {body[:300].decode(errors='replace')}"
        try:
            answer = read_answer(body)
        except msgspec.DecodeError as error:
            return f"no prediction: {error}"
        if answer.client_id != CLIENT.format(sent.client):
            return "the answer to another client"
        version = answer.version if answer.fallback is None else None
        self.tally.seen[Seen(sent.client, answer.revision, answer.arm, version)] += 1
        first, last = self.tally.spans.get(answer.revision, (sent.due, sent.due))
        self.tally.spans[answer.revision] = min(first, sent.due), max(last, sent.due)
        if answer.review is not None:
            self.tally.promises.append(Promise(sent.due, sent.client, sent.number, answer.review))
        return ""


class _Connection(asyncio.Protocol):
    """Sends a request, and has nothing to do until the next once it has the answer."""

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._sent: SentRequest | None = None
        self._sent_at = 0.0
        self._data = b""

    def keep_up(self) -> None:
        """Opens the connection where there is none, and closes it where an answer takes too long."""
        if self._transport is None and (self._opening is None or self._opening.done()):
            self._opening = asyncio.get_running_loop().create_task(self._open())
        elif self._sent is not None and time.monotonic() - self._sent_at > LONGEST_S:
            self._settle(f"no answer within {LONGEST_S:.0f} s")
            self.close()

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.abort()

    def ask(self, sent: SentRequest, request: bytes) -> None:
        """Sends a request."""
        self._sent, self._sent_at = sent, time.monotonic()
        if self._transport is not None:
            self._transport.write(request)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self, "127.0.0.1", self._sender.part.port)
        except OSError as error:
            if (request := self._sender.take()) is not None:
                self._sender.settle(request[0], f"no connection: {error.strerror}")
            await asyncio.sleep(AGAIN_S)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._sender.offer(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._data = b""
        self._sender.withdraw(self)
        if self._sent is not None:
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
        if self._transport is None:
            return
        if self._sent is None or b"connection: close" in head:
            self._transport.close()
        if self._sent is not None:
            self._settle(self._sender.check(self._sent, head[9:12], body))
            if not self._transport.is_closing():
                self._sender.offer(self)

    def _settle(self, why: str) -> None:
        if self._sent is not None:
            self._sender.settle(self._sent, why)
        self._sent = None
