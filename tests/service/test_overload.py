"""What a service does with more work than it can do, and with a runtime that hangs."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import aiohttp
import numpy as np

from tests.conftest import ROOT, run_service, set_split
from tests.images import row

FAULTS = str(ROOT / "tests" / "service" / "faults")
PREDICT = "/v1/models/digits/predict"
DEADLINE_S = 1.0


class Answer(NamedTuple):
    """An answer: how long the service worked on it as it says, and how long it took to come, in seconds."""

    status: int
    headers: Mapping[str, str]
    seconds: float

    @property
    def timed(self) -> float:
        """Seconds of waiting and running."""
        return sum(float(ms) for ms in re.findall(r"dur=([\d.]+)", self.headers["Server-Timing"])) / 1000


async def ask(session: aiohttp.ClientSession) -> Answer:
    since = time.monotonic()
    async with session.post(PREDICT, json=row()) as response:
        await response.read()
        return Answer(response.status, response.headers, time.monotonic() - since)


async def closed_loop(session: aiohttp.ClientSession, callers: int, seconds: float) -> float:
    """Answers a second when callers wait for their answers."""
    give_up = time.monotonic() + seconds

    async def call() -> int:
        answered = 0
        while time.monotonic() < give_up:
            answered += (await ask(session)).status == 200
        return answered

    return sum(await asyncio.gather(*(call() for _ in range(callers)))) / seconds


async def open_loop(session: aiohttp.ClientSession, rate: float, seconds: float) -> list[Answer]:
    """What callers get who do not wait for one another."""
    asked = []
    start = time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        asked.append(asyncio.create_task(ask(session)))
    return list(await asyncio.gather(*asked))


async def test_three_times_what_it_can_do_is_refused_and_the_rest_is_done_in_time(
    bundles: str, tmp_path: Path
) -> None:
    set_split(tmp_path, "--champion", "v2")
    with run_service(tmp_path, PYTHONPATH=FAULTS, FAULT="slow", ROLLOUT_WORKERS="1") as running:
        connections = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(running.base, connector=connections) as session:
            peak = await closed_loop(session, callers=64, seconds=3)
            answers = await open_loop(session, rate=3 * peak, seconds=4)
            accepted = [answer.timed for answer in answers if answer.status == 200]
            refused = [answer for answer in answers if answer.status != 200]
            assert len(accepted) / 4 >= 0.9 * peak
            assert np.quantile(accepted, 0.99) <= DEADLINE_S + 0.1
            assert {answer.status for answer in refused} == {503}
            assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
            assert np.median([answer.seconds for answer in refused]) < 0.5 * DEADLINE_S, "most know at once"
            await asyncio.sleep(1)
            assert (await ask(session)).status == 200


def test_a_runtime_that_hangs_costs_its_callers_their_deadline_and_the_worker_is_replaced(
    bundles: str, tmp_path: Path
) -> None:
    set_split(tmp_path, "--champion", "v2")
    black = {"client_id": "c", "inputs": {"image": np.zeros((32, 32), int).tolist()}}
    faulty = run_service(tmp_path, PYTHONPATH=FAULTS, FAULT="hang_on_black", ROLLOUT_WORKERS="1")
    with faulty as running, running.client() as client:
        assert client.post(PREDICT, json=row()).status_code == 200
        since = time.monotonic()
        timed_out = client.post(PREDICT, json=black, headers={"X-Request-Timeout": "300"})
        assert timed_out.status_code == 503
        assert timed_out.json()["type"].endswith("deadline-exceeded")
        assert time.monotonic() - since < 1
        while running.log.read_text().count("serving digits") < 2:
            assert time.monotonic() - since < 60, running.log.read_text()
            time.sleep(0.5)
        assert "the runtime of digits:v2 hangs; this worker ends, to be replaced" in running.log.read_text()
        with running.client() as again:
            assert again.post(PREDICT, json=row()).status_code == 200
