"""Rows to a running service and answers back, at the same time over one connection, in constant memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import msgspec

from rollout.errors import NO_JSON, ConfigError
from rollout.job.row import Row, Source

# Rows that are sent and not answered yet, and rows that are sent together, or bytes of them.
WINDOW = 4096
TOGETHER = 64
BYTES_TOGETHER = 1024 * 1024
# A job waits this long, in seconds, for a service that is busy, stopping or gone to answer the next row.
PATIENCE_S = 60
RETRY_S = 1.0

# Of an answer to one row, or of what the service says about itself.
MOST_BYTES = 64 * 1024 * 1024
# What is packed may be a thousand times as large as what comes.
UNPACKED = {"Accept-Encoding": "identity"}

LOST = (aiohttp.ClientError, TimeoutError, OSError)

Answered = tuple[Row, dict[str, Any]]


class _InterruptedError(Exception):
    """A stream ended before its last answer."""


class Described(msgspec.Struct, frozen=True):
    """What a service says of a model.

    Attributes:
        model: Its name.
        inputs: The field of each input.
        task: What it answers with.
    """

    model: str
    inputs: dict[str, Any]
    task: dict[str, Any]


class _Models(msgspec.Struct):
    models: list[Described]


class Exchange:
    """A connection to a service.

    Args:
        url: Where it listens.
        token: Sent as a bearer token, if there is one.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._headers = UNPACKED | ({"Authorization": f"Bearer {token}"} if token else {})

    async def __aenter__(self) -> Exchange:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=2 * PATIENCE_S)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def find_model(self, name: str | None) -> Described:
        """Returns what the service says of a model, or of its only one.

        Raises:
            ConfigError: If it does not answer, does not let us in, has no such model or more than one.
        """
        try:
            async with self._session.get(f"{self._url}/v1/models", allow_redirects=False) as response:
                await self._require_ok(response)
                found = msgspec.json.decode(await self._read(response), type=_Models).models
        except _InterruptedError as error:
            raise ConfigError(f"the service at {self._url} is not ready: {error}") from None
        except (*LOST, *NO_JSON) as error:
            raise ConfigError(f"no Rollout service answers at {self._url}: {error}") from None
        models = {model.model: model for model in found}
        if name is None and len(models) == 1:
            (name,) = models
        if name is None:
            raise ConfigError(f"the service has several models; --model is one of {', '.join(sorted(models))}")
        if name not in models:
            raise ConfigError(f"there is no model {name}; the service has {', '.join(sorted(models))}")
        return models[name]

    async def predict(self, model: str, source: Source) -> AsyncIterator[list[Answered]]:
        """Yields every row with its answer, in order: a prediction, or the problem document of that row.

        If the connection is lost, or its worker stops, it goes on with the first row that has no answer.

        Raises:
            ConfigError: If the service refuses the job or does not answer for ``PATIENCE_S``, or the file turns
                out not to be what its name says.
        """
        answered = 0
        give_up = time.monotonic() + PATIENCE_S
        while True:
            try:
                async for some in self._stream(model, source.rows(answered)):
                    yield some
                    answered += len(some)
                    give_up = time.monotonic() + PATIENCE_S
            except (_InterruptedError, *LOST) as error:
                if time.monotonic() > give_up:
                    raise ConfigError(
                        f"row {answered + 1:,} was not answered for {PATIENCE_S} s: {error}"
                    ) from None
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _stream(self, model: str, rows: Iterator[Row]) -> AsyncIterator[list[Answered]]:
        sent: asyncio.Queue[Row] = asyncio.Queue(WINDOW)
        at_end = False
        fault: ConfigError | None = None

        async def send() -> AsyncIterator[bytes]:
            nonlocal at_end, fault
            try:
                for some in _together(rows):
                    for row in some:
                        await sent.put(row._replace(line=b""))
                    yield b"".join(row.line + b"\n" for row in some)
                at_end = True
            except ConfigError as error:  # would come out of the other end as a lost connection
                fault = error
                raise

        headers = {"Content-Type": "application/x-ndjson", "X-Request-Timeout": str(PATIENCE_S * 1000)}
        url = f"{self._url}/v1/models/{model}/predict"
        try:
            async with self._session.post(url, data=send(), headers=headers, allow_redirects=False) as response:
                await self._require_ok(response)
                rest, late = b"", time.monotonic() + 2 * PATIENCE_S
                async for piece in response.content.iter_any():
                    *lines, rest = (rest + piece).split(b"\n")
                    answers = [self._answer(line) for line in lines]
                    if len(rest) > MOST_BYTES or len(answers) > sent.qsize():
                        raise self._strange()
                    if answers:
                        yield [(sent.get_nowait(), answer) for answer in answers]
                        late = time.monotonic() + 2 * PATIENCE_S
                    elif time.monotonic() > late:
                        raise TimeoutError("what comes is no whole answer")
        except LOST:
            if fault is not None:
                raise fault from None
            raise
        if not at_end or not sent.empty():
            raise _InterruptedError("the answers ended before the rows did")

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        except NO_JSON:
            raise self._strange() from None
        if "status" in answer and not isinstance(answer.get("detail"), str):
            raise self._strange()
        if "status" in answer and "line" not in answer:  # about the stream, not about a row
            raise _InterruptedError(answer["detail"])
        return answer

    async def _require_ok(self, response: aiohttp.ClientResponse) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":  # nobody asked for that
            raise self._strange()
        if response.status == 200:
            return
        try:
            detail = str(msgspec.json.decode(await self._read(response), type=dict[str, Any])["detail"])
        except (*NO_JSON, KeyError):
            detail = f"{response.status} {response.reason}"
        if response.status == 503:
            raise _InterruptedError(detail)
        raise ConfigError(f"the service refused: {detail}")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async with asyncio.timeout(2 * PATIENCE_S):
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > MOST_BYTES:
                    raise self._strange()
        return bytes(body)

    def _strange(self) -> ConfigError:
        return ConfigError(f"what answers at {self._url} is no Rollout service that this version knows")


def _together(rows: Iterator[Row]) -> Iterator[list[Row]]:
    some: list[Row] = []
    size = 0
    for row in rows:
        some.append(row)
        size += len(row.line)
        if len(some) == TOGETHER or size >= BYTES_TOGETHER:
            yield some
            some, size = [], 0
    if some:
        yield some
