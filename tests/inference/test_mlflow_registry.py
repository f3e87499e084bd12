"""What a registry answers that is large, odd or hostile."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from rollout.inference.mlflow_registry import MOST_BYTES, MlflowRegistry, RegistryError
from rollout.mlflow_server import MlflowServer


@asynccontextmanager
async def answering(body: bytes, status: int = 200, header: str = "X: y") -> AsyncIterator[MlflowRegistry]:
    """A server that answers everything with the same."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} X\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield MlflowRegistry(MlflowServer(f"http://127.0.0.1:{port}", {}))


async def test_an_answer_that_comes_in_many_pieces_is_read_to_its_end() -> None:
    aliases = [{"alias": f"a{number}", "version": str(number)} for number in range(20_000)]
    body = msgspec.json.encode({"registered_model": {"aliases": aliases}})
    assert 500_000 < len(body) < MOST_BYTES
    async with answering(body) as registry:
        assert len(await registry.aliases("digits")) == 20_000


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"\xff",
        b'{"model_versions": 3}',
        b'{"model_versions": [{}]}',
        b'{"model_versions": [{"version": ["1"]}]}',
        b'{"model_versions": [{"version": "%s"}]}' % (b"1" * 2000),
        b'{"more": ' + b"[" * 100_000,
        b" " * (MOST_BYTES + 1),
    ],
)
async def test_what_is_no_registrys_answer_is_said_to_be_none(body: bytes) -> None:
    async with answering(body) as registry:
        with pytest.raises(RegistryError, match="answers"):
            await registry.version_of("digits", "d")


async def test_what_is_packed_is_not_unpacked() -> None:
    async with answering(gzip.compress(b" " * 10_000_000), header="Content-Encoding: gzip") as registry:
        with pytest.raises(RegistryError, match="no registry's answer"):
            await registry.aliases("digits")


async def test_a_reason_is_one_line() -> None:
    body = msgspec.json.encode({"message": "no\n12:00:00 ERROR forged\x1b[31m" + "x" * 1000})
    async with answering(body, 400) as registry:
        with pytest.raises(RegistryError, match="refuses with 400: no 12:00:00") as refused:
            await registry.aliases("digits")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400
