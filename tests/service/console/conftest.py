"""A console on a real Valkey, and browsers to look at it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollout.config import Settings
from rollout.store import Redis
from tests.service.console.browser import find_chromium, serving
from tests.service.console.stage import (
    ADMIN,
    ALONE,
    TOKENS,
    TRIAL,
    Browser,
    Stage,
    make_app,
    write_history,
)


@pytest.fixture
async def stage(redis: Redis, tmp_path: Path) -> Stage:
    """A trial with 5 % at revision 2."""
    return Stage(
        redis, Settings(home=tmp_path, tokens=TOKENS), await write_history(redis, "digits", ALONE, TRIAL)
    )


@pytest.fixture
async def admin(stage: Stage) -> AsyncIterator[Browser]:
    """A browser with an admin's session."""
    async with stage.browser(ADMIN) as browser:
        yield browser


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium."""
    return find_chromium()


@pytest.fixture
async def desk_site(redis: Redis, tmp_path: Path) -> AsyncIterator[str]:
    """A console with six models and nothing to review yet."""
    served = await write_history(redis, "digits", ALONE, TRIAL)
    others = dict.fromkeys(("languages", "departures", "birds", "topics", "flights"), ALONE)
    app = make_app(redis, Settings(home=tmp_path, tokens=TOKENS), digits=served, **others)
    async with serving(app) as base:
        yield base
