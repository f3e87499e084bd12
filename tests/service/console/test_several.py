"""Reviewing a model with several heads, in a real browser, with the keyboard alone."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page, expect

from rollout.heads import Truth
from rollout.store import Redis
from tests.service.console.browser import IS_TOO_WIDE, LOW_CONTRAST
from tests.service.console.reviewing import press, resolved, reviewing, shown_key
from tests.service.console.test_review_looks import LOOKS
from tests.service.console.waiting import make_flight, put

DESK = "/console/models/flights/review"
TOPICS = Truth(labels=["travel"])


async def turn_of(page: Page, name: str) -> None:
    await expect(page.locator("[aria-current=step] b")).to_have_text(name)


async def order(page: Page) -> list[str]:
    return await page.locator(".heads li > b").all_inner_texts()


async def has_ids_once(page: Page) -> bool:
    found: list[str] = await page.evaluate("[...document.querySelectorAll('[id]')].map(({ id }) => id)")
    return len(found) == len(set(found))


async def test_the_heads_come_one_after_the_other(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, make_flight(1), make_flight(2, "late"))
    async with reviewing(chromium, desk_site, path=DESK) as page:
        accept = page.locator("#accept")
        assert {await shown_key(page)} <= {"key-1", "key-2"}
        first = await shown_key(page)
        if first == "key-2":
            await press(page, "Enter", "Enter", "Enter", "Enter")
            await expect(page.locator("#item")).to_contain_text("key-1")
        # Those that are unsure come first, and say so.
        assert await order(page) == ["minutes", "cause", "late", "topics"]
        assert await page.locator("[data-unsure]:visible").count() == 2
        await expect(page.locator("#item")).to_contain_text("The model was unsure of minutes, cause.")
        await expect(page.locator("#model-answer")).to_contain_text("place 3")  # which is shown, and not asked
        assert await page.locator("#panel").get_by_text("Change").locator("visible=true").count() == 0
        await turn_of(page, "minutes")
        assert await has_ids_once(page)
        await press(page, "1", "Enter")  # the keys of another head do nothing
        await turn_of(page, "cause")
        await expect(page.locator("#announced")).to_have_text("cause, 2 of 4. The model says carrier.")
        await expect(page.locator("[data-head=minutes] [data-said]")).to_have_text("11.25")
        assert await has_ids_once(page)
        await expect(accept).to_contain_text("Accept carrier")
        await press(page, "1")
        await turn_of(page, "late")
        await expect(page.locator("[data-head=cause] [data-said]")).to_have_text("weather")
        await press(page, "z", "z")
        await turn_of(page, "minutes")
        await press(page, "/")
        assert await page.locator("#value").input_value() == "11.25"
        await page.keyboard.type("20")
        await press(page, "Enter")
        await turn_of(page, "cause")
        await expect(accept).to_contain_text("Accept weather")  # as it was said before
        await press(page, ".")  # nobody need know everything
        await turn_of(page, "late")
        await expect(page.locator("#leave-out")).to_be_hidden()  # but what the model is judged by
        await press(page, "Enter")
        await turn_of(page, "topics")
        await press(page, "Enter")
        if first == "key-1":
            await expect(page.locator("#item")).to_contain_text("key-2")
            assert await order(page) == ["late", "minutes", "cause", "topics"]
            await turn_of(page, "late")
            await press(page, "Enter", "Enter", "Enter", "Enter")
        works = await resolved(redis, 2, "flights")
    assert works["key-1"].truth.heads == {
        "minutes": Truth(value=20),
        "late": Truth(label="yes"),
        "topics": TOPICS,
    }
    assert works["key-2"].truth.heads == {
        "late": Truth(label="yes"),
        "minutes": Truth(value=11.25),
        "cause": Truth(label="carrier"),
        "topics": TOPICS,
    }


async def test_undoing_leads_to_the_last_head(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, make_flight(1))
    async with reviewing(chromium, desk_site, path=DESK) as page:
        await turn_of(page, "minutes")
        await press(page, "Enter", "2", "1", "Enter")
        await expect(page.locator("#decided")).to_have_text("1")
        await press(page, "z")
        await turn_of(page, "topics")
        await expect(page.locator("[data-head=topics] [data-said]")).to_have_text("travel")
        await page.get_by_label("Change late").click()
        await turn_of(page, "late")
        await press(page, "2", "Enter")
        works = await resolved(redis, 1, "flights")
    assert works["key-1"].truth.heads == {
        "minutes": Truth(value=11.25),
        "cause": Truth(label="carrier"),
        "late": Truth(label="yes"),
        "topics": TOPICS,
    }


async def test_what_the_model_says_of_a_head_can_be_hidden(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, make_flight(1, "cause"))
    async with reviewing(chromium, desk_site, path=DESK) as page:
        await turn_of(page, "cause")
        await press(page, "h")
        await expect(page.locator("#accept")).to_be_disabled()
        assert "carrier" not in await page.locator("#accept").inner_text()
        await press(page, "Enter")
        await turn_of(page, "cause")
        await press(page, "3", "1")
        await turn_of(page, "minutes")
        assert await page.locator("#value").input_value() == ""
        await press(page, "z", "Enter")  # what one said oneself is not hidden
        await turn_of(page, "minutes")
        await press(page, "h")


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
async def test_all_of_it_can_be_read(chromium: str, desk_site: str, redis: Redis, look: dict[str, Any]) -> None:
    await put(redis, make_flight(1))
    async with reviewing(chromium, desk_site, path=DESK, reduced_motion="reduce", **look) as page:
        for name in ("minutes", "cause", "late", "topics"):
            await turn_of(page, name)
            assert await page.evaluate(LOW_CONTRAST) == []
            assert not await page.evaluate(IS_TOO_WIDE)
            await press(page, "?")
            assert await page.evaluate(LOW_CONTRAST) == []
            await press(page, "Escape")
            await expect(page.locator("#keys")).to_be_hidden()
            await press(page, "Enter")
