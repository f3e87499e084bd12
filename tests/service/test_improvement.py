"""What became of labels, as the service tells it."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from rollout.config import Settings
from rollout.embedded import running_redis
from rollout.store import connect
from tests.conftest import Service
from tests.improvement.attempts import REFUSED, keep

PATH = "/v1/models/digits/improvement"


def test_an_admin_and_a_metric_are_told_what_became_of_labels(service: Service) -> None:
    async def write(url: str) -> None:
        async with aclosing(await connect(url)) as redis:
            await keep(redis, "digits", REFUSED)

    with running_redis(Settings(home=service.home)) as url:
        asyncio.run(write(url))
    with service.admin() as client:
        told = client.get(PATH).json()
        assert (told["number"], told["cursor"]) == (1, 1)
        (attempt,) = told["attempts"]
        assert (attempt["version"], attempt["outcome"], attempt["todo"]) == (
            "v2.1",
            "refused",
            "Look at the labels.",
        )
    give_up = time.monotonic() + 60
    while service.metric("rollout_improvement", 'model="digits"', 'outcome="refused"') != 1:
        assert time.monotonic() < give_up
        time.sleep(0.1)
    assert service.metric("rollout_improvement", 'model="digits"', 'outcome="on trial"') == 0
