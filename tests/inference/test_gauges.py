"""The gauges: how they end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.inference.gauges import Gauges


async def test_they_end_at_once_even_where_redis_caught_the_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = SimpleNamespace(name="digits")
    redis: Any = None
    gauges = Gauges(model, redis)
    asked = asyncio.Event()

    async def show() -> None:
        asked.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise RuntimeError("as redis-py may turn it into a failed connection") from None

    monkeypatch.setattr(gauges, "show", show)
    task = asyncio.get_running_loop().create_task(gauges.run())
    await asked.wait()
    task.cancel()
    await asyncio.wait_for(task, 1)
