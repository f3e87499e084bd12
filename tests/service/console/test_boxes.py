"""Boxes are accepted, moved, named, drawn and removed, with the keyboard alone or with the mouse."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest
from playwright.async_api import Page, expect

from rollout.bundle.image import Image
from rollout.config import Settings
from rollout.heads import Boxes
from rollout.review.item import ReviewItem
from rollout.store import Redis
from tests.review.items import make_item, written
from tests.service.console.browser import LOW_CONTRAST, serving, tab_to
from tests.service.console.reviewing import press, resolved, reviewing, shown_key
from tests.service.console.stage import ALONE, SERVED, TOKENS, make_app, write_history
from tests.service.console.waiting import put

HEAD = Boxes(labels=["lamp", "wall"], candidates=9, most=3, review_threshold=0.6)
FOUND = [("lamp", 0.9, [0.1, 0.2, 0.4, 0.5]), ("wall", 0.5, [0.6, 0.5, 0.9, 0.9])]
PATH = "/console/models/shapes/review"


def make_shapes(number: int, **changes: Any) -> ReviewItem:
    """Returns an item with two boxes, one of them unsure."""
    pixels = [[20 + 3 * column + row for column in range(48)] for row in range(32)]
    answer = {"boxes": [{"label": label, "score": score, "box": box} for label, score, box in FOUND]}
    fields = {
        "model": "shapes",
        "task": written(HEAD),
        "answer": answer,
        "inputs": msgspec.Raw(msgspec.json.encode({"photo": pixels})),
    }
    return make_item(number, **(fields | changes))


@pytest.fixture
async def site(redis: Redis, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(SERVED, "shapes", ({"photo": Image(height=32, width=48)}, HEAD))
    served = await write_history(redis, "shapes", ALONE)
    async with serving(make_app(redis, Settings(home=tmp_path, tokens=TOKENS), shapes=served)) as base:
        yield base


async def look(page: Page, name: str) -> None:
    """Writes what is seen where somebody wants to look at it."""
    if folder := os.environ.get("SCREENSHOTS"):
        await page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def said(work: Any) -> list[tuple[str, tuple[float, ...]]]:
    return [(box.label, box.box) for box in work.truth.boxes]


async def test_boxes_are_decided_on_with_the_keyboard_alone(chromium: str, site: str, redis: Redis) -> None:
    await put(redis, *(make_shapes(number) for number in range(4)))
    async with reviewing(chromium, site, path=PATH) as page:
        first = await shown_key(page)
        await expect(page.locator(".box")).to_have_count(2)
        await expect(page.locator("#model-answer")).to_contain_text(
            "lamp 90.0 % wall 50.0 %", use_inner_text=False
        )
        await look(page, "boxes-shown")
        assert await page.evaluate(LOW_CONTRAST) == []
        await press(page, "Enter")

        second = await shown_key(page)
        await press(page, "Tab")
        await expect(page.locator("#box-place")).to_have_text(
            "1 of 2: lamp, 10 % from the left, 20 % from the top, 30 % wide, 30 % high."
        )
        await press(page, "ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowDown", "Shift+ArrowLeft")
        await press(page, "Tab", "1")
        await look(page, "boxes-moved")
        await press(page, "Enter")

        third = await shown_key(page)
        await press(page, "Tab", "Delete", "Backspace", "n", "2", *["ArrowLeft"] * 50, "Shift+ArrowRight")
        await press(page, "n", "n", "n")
        await expect(page.locator(".box")).to_have_count(3)
        await expect(page.locator("#box-place")).to_have_text("There are 3 boxes, and there may be no more.")
        await press(page, "Delete", "Delete", "Escape")
        assert await page.evaluate("document.activeElement.id") == "item"
        await press(page, "Enter")

        fourth = await shown_key(page)
        await press(page, "h")
        await expect(page.locator(".box")).to_have_count(0)
        await expect(page.locator("#box-place")).to_have_text("No boxes.")
        await press(page, "Enter")
        await expect(page.locator("#box-place")).to_contain_text("Draw the boxes first")
        await press(page, "-", "Enter")
        works = await resolved(redis, 4, "shapes")
        assert said(works[first]) == [("lamp", (0.1, 0.2, 0.4, 0.5)), ("wall", (0.6, 0.5, 0.9, 0.9))]
        assert said(works[second]) == [("lamp", (0.12, 0.19, 0.41, 0.5)), ("lamp", (0.6, 0.5, 0.9, 0.9))]
        assert said(works[third]) == [("wall", (0, 0.4, 0.21, 0.6))]
        assert said(works[fourth]) == []


async def test_boxes_are_drawn_and_dragged_with_the_mouse(chromium: str, site: str, redis: Redis) -> None:
    await put(redis, make_shapes(0), make_shapes(1))
    async with reviewing(chromium, site, path=PATH) as page:
        key = await shown_key(page)
        place = await page.locator(".box-layer").bounding_box()
        picture = await page.locator("img").bounding_box()
        assert place is not None
        assert picture is not None
        assert place["width"] / place["height"] == pytest.approx(48 / 32, rel=0.01)  # the picture, not its frame
        assert picture["x"] <= place["x"] <= picture["x"] + 2

        async def drag(x: float, y: float, to_x: float, to_y: float) -> None:
            await page.mouse.move(place["x"] + x * place["width"], place["y"] + y * place["height"])
            await page.mouse.down()
            await page.mouse.move(
                place["x"] + to_x * place["width"], place["y"] + to_y * place["height"], steps=4
            )
            await page.mouse.up()

        await drag(0.25, 0.35, 0.35, 0.25)  # moves the first
        await drag(0.9, 0.9, 0.9, 0.9)  # takes the second, and its corner
        await drag(0.9, 0.9, 0.8, 2)
        await drag(0.02, 0.75, 0.22, 0.95)  # draws one
        await page.get_by_role("button", name="lamp").click()
        await drag(0.5, 0.05, 0.5, 0.05)  # a click draws none
        await expect(page.locator(".box")).to_have_count(3)
        await look(page, "boxes-dragged")
        await page.locator("#accept").click()
        found = said((await resolved(redis, 1, "shapes"))[key])
        wanted = [
            ("lamp", (0.02, 0.75, 0.22, 0.95)),
            ("lamp", (0.2, 0.1, 0.5, 0.4)),
            ("wall", (0.6, 0.5, 0.8, 1)),
        ]
        assert [label for label, _ in found] == [label for label, _ in wanted]
        for (_, one), (_, other) in zip(found, wanted, strict=True):
            assert one == pytest.approx(other, abs=0.01)


async def test_every_part_of_it_is_reached_by_tab(chromium: str, site: str, redis: Redis) -> None:
    await put(redis, make_shapes(0))
    async with reviewing(chromium, site, path=PATH) as page:
        await shown_key(page)
        for selector in (
            ".box:first-child",
            ".box:last-child",
            "[data-label=wall]",
            "[data-does=add]",
            "#accept",
        ):
            await tab_to(page, selector)
