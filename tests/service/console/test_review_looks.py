"""The reviewers' page can be read: in the light, in the dark, on a phone."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import expect

from rollout.store import Redis
from tests.service.console.browser import IS_TOO_WIDE, LOW_CONTRAST, browsing, log_in
from tests.service.console.reviewing import DESK, press, shown_key
from tests.service.console.stage import (
    REVIEWER,
)
from tests.service.console.waiting import make_digit, make_hour, make_song, make_text, put

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {
        "color_scheme": "dark",
        "viewport": {"width": 375, "height": 740},
        "has_touch": True,
        "is_mobile": True,
    },
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
async def test_everything_can_be_read(chromium: str, desk_site: str, redis: Redis, look: dict[str, Any]) -> None:
    other = {"version": "v2", "label": "9", "confidence": 0.8, "scores": {"9": 0.8, "1": 0.2}}
    long = "a-client-with-a-name-that-nobody-would-want-to-read-to-its-end-" * 3
    await put(redis, make_digit(1, client_id=long, reason="disagreement", pi=0.2, other=other))
    await put(
        redis, make_text(1, "Ein Satz.\nUnd " + "n" * 200 + " einer.", key=long), make_hour(1), make_song(1)
    )
    async with browsing(chromium, desk_site, "503", reduced_motion="reduce", **look) as page:

        async def check() -> None:
            assert await page.evaluate(LOW_CONTRAST) == []
            assert not await page.evaluate(IS_TOO_WIDE)

        await page.goto(DESK)
        await check()
        await log_in(page, REVIEWER, DESK)
        for model in ("digits", "languages", "departures", "birds"):
            await page.goto(f"/console/models/{model}/review")
            await shown_key(page)
            await check()
        await press(page, "s")
        await check()
        await press(page, "Escape", "?")
        await check()
        await press(page, "Escape", "h")
        await page.get_by_text("Filters").click()
        await check()
        await press(page, "/")
        await page.keyboard.type("tit")
        await check()
        await press(page, "Escape", "e")
        await expect(page.locator("#item")).to_have_text("Nothing to review.")
        await check()
