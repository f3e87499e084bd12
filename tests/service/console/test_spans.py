"""Spans over a text in a real browser: with the keyboard alone, and with the mouse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.async_api import Page, expect

from rollout.config import Settings
from rollout.heads import Span
from rollout.review.item import ReviewItem
from rollout.store import Redis
from tests.review.items import make_item, written
from tests.service.console.browser import IS_TOO_WIDE, LOW_CONTRAST, serving
from tests.service.console.reviewing import press, resolved, reviewing, shown_key
from tests.service.console.stage import ALONE, SERVED, TOKENS, make_app, write_history
from tests.service.console.waiting import put

TEXT = "😀 Zoé Q met <b>Bob</b>\r\nin 東京, and & then"
DESK = "/console/models/names/review"


def make_names(number: int, text: str = TEXT, **changes: Any) -> ReviewItem:
    """Returns an item in which the model saw Zoé alone, and took met for a place."""
    spans = [
        {"start": 2, "end": 5, "label": "name", "confidence": 0.9},
        {"start": 8, "end": 11, "label": "place", "confidence": 0.6},
    ]
    inputs = msgspec.Raw(msgspec.json.encode({"title": "Zoé met Bob", "text": text}))
    fields = {"model": "names", "inputs": inputs, "answer": {"spans": spans}, "task": written(SERVED["names"][1])}
    return make_item(number, **(fields | changes))


@pytest.fixture
async def site(redis: Redis, tmp_path: Path) -> AsyncIterator[str]:
    """A console with a model that finds names."""
    app = make_app(
        redis, Settings(home=tmp_path, tokens=TOKENS), names=await write_history(redis, "names", ALONE)
    )
    async with serving(app) as base:
        yield base


async def marked(page: Page) -> list[list[str]]:
    """Returns the spans that are seen in the text, and their labels."""
    found: list[list[str]] = await page.evaluate(
        "[...document.querySelectorAll('#item mark')].map((mark) => [mark.textContent, mark.dataset.label])"
    )
    return found


async def test_spans_are_corrected_with_the_keyboard_alone(chromium: str, site: str, redis: Redis) -> None:
    await put(redis, *(make_names(number) for number in range(3)))
    async with reviewing(chromium, site, path=DESK) as page:
        status = page.locator("#picked")
        first = await shown_key(page)
        assert await marked(page) == [["Zoé", "name"], ["met", "place"]]
        await press(page, "Enter")  # as the model says
        second = await shown_key(page)
        await press(page, "ArrowDown", "Shift+ArrowRight")
        await expect(status).to_have_text("“Zoé Q” is selected, in the span “Zoé”: name.")
        await press(page, "1")
        assert await marked(page) == [["Zoé Q", "name"], ["met", "place"]]
        await press(page, "ArrowDown")
        await expect(status).to_have_text("“met” is selected, in the span “met”: place.")
        await press(page, "Delete")
        assert await marked(page) == [["Zoé Q", "name"]]
        for _ in range(4):  # <, b, > and Bob
            await press(page, "ArrowRight")
        await expect(status).to_have_text("“Bob” is selected.")
        await press(page, "2", "1")
        while "東" not in await status.inner_text():
            await press(page, "ArrowRight")
        if "京" not in await status.inner_text():
            await press(page, "Shift+ArrowRight")
        await press(page, "Control+Shift+ArrowLeft", "Control+Shift+ArrowRight", "Control+Shift+ArrowRight")
        await expect(status).to_have_text("“東京,” is selected.")
        await press(page, "Shift+ArrowLeft", "2")
        assert await marked(page) == [["Zoé Q", "name"], ["Bob", "name"], ["東京", "place"]]
        await press(page, "Enter")
        third = await shown_key(page)
        await press(page, "h")
        assert await marked(page) == []
        await press(page, "ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowRight")
        await expect(status).to_have_text("“& then” is selected.")
        await press(page, "1", "ArrowUp", "Backspace", "Enter")
        works = await resolved(redis, 3, "names")
        said = {key: work.spans for key, work in works.items()}
        assert said[first] == [Span(2, 5, "name"), Span(8, 11, "place")]
        assert said[second] == [Span(2, 7, "name"), Span(15, 18, "name"), Span(27, 29, "place")]
        assert TEXT[15:18] == "Bob"
        assert TEXT[27:29] == "東京"
        assert said[third] == []


async def test_spans_are_corrected_with_the_mouse(chromium: str, site: str, redis: Redis) -> None:
    await put(redis, make_names(1), make_names(2, inputs=msgspec.Raw(b'{"title":"Bob","text":null}')))
    async with reviewing(chromium, site, path=DESK) as page:
        for _ in range(2):
            key = await shown_key(page)
            if key == "key-2":  # its text is redacted
                await expect(page.locator("#spans-gone")).to_be_visible()
                await press(page, "1", "Delete", "ArrowRight", "Enter")
                continue
            await expect(page.locator("#spans-gone")).to_be_hidden()
            await page.locator("mark", has_text="met").click()
            await page.get_by_role("button", name="No span").click()
            text = page.locator("#item .text[data-name=text]")
            box = await page.evaluate(
                """() => {
                  const range = document.createRange();
                  const node = [...document.querySelector("#item .text[data-name=text]").childNodes].find((one) => one.data?.includes("Bob"));
                  range.setStart(node, node.data.indexOf("Bob"));
                  range.setEnd(node, node.data.indexOf("Bob") + 3);
                  const { left, right, top, height } = range.getBoundingClientRect();
                  return [left, right, top + height / 2];
                }"""
            )
            await page.mouse.move(box[0] + 1, box[2])
            await page.mouse.down()
            await page.mouse.move(box[1] - 1, box[2], steps=4)
            await page.mouse.up()
            await expect(page.locator("#picked")).to_have_text("“Bob” is selected.")
            await page.get_by_role("button", name="place").first.click()
            await page.mouse.click(box[0] + 3, box[2])
            await expect(page.locator("#picked")).to_have_text("“Bob” is selected, in the span “Bob”: place.")
            await page.get_by_role("button", name="name 1").click()
            assert await marked(page) == [["Zoé", "name"], ["Bob", "name"]]
            assert await text.text_content() == TEXT
            assert not await text.locator("b").count()
            await press(page, "Enter")
        works = await resolved(redis, 2, "names")
        assert works["key-1"].spans == [Span(2, 5, "name"), Span(15, 18, "name")]
        assert works["key-2"].spans == [Span(2, 5, "name"), Span(8, 11, "place")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_spans_are_read_in_any_light_on_any_screen(
    chromium: str, site: str, redis: Redis, tmp_path: Path, scheme: Any
) -> None:
    await put(redis, make_names(1))
    async with reviewing(chromium, site, path=DESK, color_scheme=scheme) as page:
        await shown_key(page)
        await press(page, "ArrowDown")
        assert await page.evaluate(LOW_CONTRAST) == []
        await page.screenshot(path=tmp_path / f"spans-{scheme}.png")
        await page.set_viewport_size({"width": 360, "height": 740})
        assert not await page.evaluate(IS_TOO_WIDE)
