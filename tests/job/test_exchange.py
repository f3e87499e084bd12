"""What ``rollout predict`` does where somebody else answers in the place of the service: it says so, in a line."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from rollout.errors import ConfigError
from rollout.job import exchange
from rollout.job.exchange import Exchange
from rollout.job.row import Row, Source
from tests.client.test_hostile import BOMB, answering

MODELS = {"models": [{"model": "m", "inputs": {}, "task": {}}]}


def head(status: int, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} X", "Connection: close", *lines, "", ""]).encode()


def endless(connection: Any) -> None:
    connection.sendall(head(200))
    while True:
        connection.sendall(b"x" * 65536)


async def find(url: str) -> Any:
    async with Exchange(url, "secret") as asked:
        return await asked.find_model("m")


async def predict(url: str) -> Any:
    rows = [Row("c", f"k{number}", b"{}", number) for number in range(2)]
    async with Exchange(url, "secret") as asked:
        return [one async for some in asked.predict("m", Source(2, lambda: iter(rows))) for one in some]


@pytest.mark.parametrize("asking", [find, predict])
@pytest.mark.parametrize(
    "answer",
    [
        *(b"<h1>fine</h1>\n", b"null\n", b"[" * 100_000 + b"\n", b"\xff\n", b"{}\n{}\n{}\n{}\n"),
        *(b'{"models":[1]}\n{"status":400}\n', b'{"models":[{"model":1}]}\n{"status":"x","detail":1}\n'),
    ],
)
async def test_what_is_no_answer_is_said_in_a_line(answer: bytes, asking: Any) -> None:
    with (
        answering(lambda connection: connection.sendall(head(200) + answer)) as url,
        pytest.raises(ConfigError, match="no Rollout service"),
    ):
        await asking(url)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("asking", [find, predict])
async def test_no_answer_that_drips_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, asking: Any, status: int
) -> None:
    monkeypatch.setattr(exchange, "PATIENCE_S", 0.3)

    def drip(connection: Any) -> None:
        connection.sendall(head(status))
        for _ in range(200):
            connection.sendall(b" ")
            time.sleep(0.05)

    with (
        answering(drip) as url,
        pytest.raises(ConfigError, match=r"no Rollout service|was not answered for 0.3 s"),
    ):
        await asyncio.wait_for(asking(url), 8)


@pytest.mark.parametrize("asking", [find, predict])
async def test_no_answer_fills_the_memory(monkeypatch: pytest.MonkeyPatch, asking: Any) -> None:
    monkeypatch.setattr(exchange, "MOST_BYTES", 1024 * 1024)

    def bomb(connection: Any) -> None:
        connection.sendall(head(200, "Content-Encoding: gzip", f"Content-Length: {len(BOMB)}") + BOMB + b"\n")

    for answer in (endless, bomb):
        with answering(answer) as url, pytest.raises(ConfigError, match="no Rollout service"):
            await asking(url)


async def test_pieces_of_an_answer_are_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PATIENCE_S", 1)
    with (
        answering(lambda connection: connection.sendall(head(200) + b'{"label"')) as url,
        pytest.raises(ConfigError, match="row 1 was not answered for 1 s"),
    ):
        await predict(url)


@pytest.mark.parametrize("asking", [find, predict])
async def test_rows_and_the_token_go_nowhere_else(asking: Any) -> None:
    came: list[Any] = []
    with answering(came.append) as elsewhere:
        redirect = head(307, f"Location: {elsewhere}/", "Content-Length: 0")
        with (
            answering(lambda connection: connection.sendall(redirect)) as url,
            pytest.raises(ConfigError, match="the service refused: 307"),
        ):
            await asking(url)
    assert came == []


async def test_it_finds_the_model() -> None:
    body = msgspec.json.encode(MODELS)
    with answering(lambda connection: connection.sendall(head(200) + body)) as url:
        assert (await find(url)).model == "m"
