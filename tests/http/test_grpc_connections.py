"""What a connection of gRPC holds of a worker, and for how long, whatever it sends and does not read."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs

from rollout.config import Settings
from rollout.http import oip_grpc
from rollout.http.gateway import Gateway
from tests.conftest import free_port

MOST = 20
# Of HTTP/2, RFC 9113: kinds of frames, flags, and two settings.
DATA, HEADERS, SETTINGS, GOAWAY = 0, 1, 4, 7
END_STREAM, END_HEADERS = 1, 4
MOST_STREAMS, WINDOW = 3, 4
PATH = b"/inference.GRPCInferenceService/ServerLive"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def call(stream: int) -> bytes:
    """Returns a call with an empty message, which takes no token."""
    fields = [
        (b":path", PATH),
        (b":authority", b"x"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    block = b"\x83\x86" + b"".join(header(*field) for field in fields)
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, bytes(5))


async def read_frames(reader: asyncio.StreamReader) -> list[tuple[int, bytes]]:
    """Returns the kinds and payloads of all frames until the other side ends the connection."""
    frames = []
    while len(head := await reader.read(9)) == 9:
        frames.append((head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))))
    return frames


async def is_live(channel: grpc.aio.Channel) -> str:
    try:
        await stubs.GRPCInferenceServiceStub(channel).ServerLive(messages.ServerLiveRequest(), timeout=30)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


@asynccontextmanager
async def answering(settings: Settings) -> AsyncIterator[None]:
    gateway: Any = Gateway.__new__(Gateway)
    gateway.settings = settings
    stop = await oip_grpc.start(gateway, settings)
    try:
        yield
    finally:
        await stop()


async def test_many_calls_at_once_on_one_connection_are_all_answered() -> None:
    settings = Settings(grpc_port=free_port())
    async with answering(settings), grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
        assert set(await asyncio.gather(*(is_live(channel) for _ in range(900)))) == {"OK"}


async def test_who_takes_no_answer_holds_few_calls_and_none_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGE_S", "END_WITHIN_S"):
        monkeypatch.setattr(oip_grpc, name, 1.0)
    settings = Settings(grpc_port=free_port(), max_connections=MOST)
    async with answering(settings):
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.grpc_port)
        nothing = struct.pack(">HI", WINDOW, 0)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, nothing))
        writer.write(b"".join(call(stream) for stream in range(1, 4 * MOST, 2)))
        frames = asyncio.create_task(read_frames(reader))
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}")
        async with asyncio.timeout(30), channel:
            while await is_live(channel) == "OK":
                pass
            assert await is_live(channel) == "RESOURCE_EXHAUSTED"
            (_, said), *others = await frames
            assert GOAWAY in dict(others)
            while await is_live(channel) != "OK":
                pass
        limits = dict(struct.iter_unpack(">HI", said))
        assert limits[MOST_STREAMS] == MOST
        writer.close()
