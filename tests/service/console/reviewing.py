"""The reviewers' page in a browser, and what became of items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Page

from rollout.review.item import ReviewItem
from rollout.review.queue import list_items, read_item
from rollout.review.state import State, Work
from rollout.store import Redis
from tests.service.console.browser import browsing, log_in
from tests.service.console.stage import (
    NAME,
    REVIEWER,
)

DESK = "/console/models/digits/review"


@asynccontextmanager
async def reviewing(
    chromium: str, site: str, *forgiven: str, path: str = DESK, name: str = NAME, **options: Any
) -> AsyncIterator[Page]:
    """Opens the reviewers' page as somebody; on a busy machine Redis may be slow, which the page is to bear."""
    async with browsing(chromium, site, "503", *forgiven, **options) as page:
        await log_in(page, REVIEWER, path, name)
        yield page


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Waits until something holds."""
    for _ in range(300):
        if await holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it does not come to that")


async def resolved(redis: Redis, number: int, model: str = "digits") -> dict[str, Work]:
    """Waits until so many items are resolved, and returns what became of them by key."""
    found: dict[str, Work] = {}

    async def are_there() -> bool:
        found.clear()
        async for item, work in list_items(redis, model, {}, state=State.RESOLVED):
            found[item.key or ""] = work
        return len(found) >= number

    await until(are_there)
    assert len(found) == number
    return found


async def work_of(redis: Redis, item: ReviewItem) -> Work:
    found = await read_item(redis, item.model, item.id)
    assert found is not None
    return found[1]


async def shown_key(page: Page) -> str:
    """Returns the key of the item that is shown, once there is one."""
    key = page.locator("#item dt:text-is('Key') + dd")
    return await key.inner_text()


async def press(page: Page, *keys: str) -> None:
    for key in keys:
        await page.keyboard.press(key)
