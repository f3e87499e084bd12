"""Deciding on labels of which several hold, and on several numbers, with the keyboard alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.async_api import Page, expect

from rollout import MultiLabel, Targets, Text
from rollout.config import Settings
from rollout.heads import Head
from rollout.review.item import ReviewItem
from rollout.store import Redis
from tests.review.items import make_item, written
from tests.service.console import stage
from tests.service.console.browser import IS_TOO_WIDE, LOW_CONTRAST, serving
from tests.service.console.reviewing import press, resolved, reviewing, shown_key
from tests.service.console.stage import ALONE, BIRDS, TOKENS, make_app, write_history
from tests.service.console.waiting import put

TOPICS = MultiLabel(labels=[*BIRDS[:10], "food", "sport"], margins={"food": 0.1})
MANY = MultiLabel(labels=[f"topic {number}" for number in range(40)])
PRICES = Targets(names=["low", "high"], half_widths=[1.0, 2.0], widest=3.0)
HEADS: dict[str, Head] = {"topics": TOPICS, "prices": PRICES, "many": MANY}


def make(model: str, number: int, *scores: float) -> ReviewItem:
    """Returns an item that its model has given these scores."""
    import numpy as np

    head = HEADS[model]
    (row,) = head.numbers(np.array([scores], np.float32)).tolist()
    answer = msgspec.to_builtins(head.answer(row)._asdict())
    text = msgspec.Raw(msgspec.json.encode({"text": f"Text {number}"}))
    return make_item(number, model=model, task=written(head), answer=answer, threshold=None, inputs=text)


@pytest.fixture
async def site(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A console with models of these kinds."""
    fields: dict[str, Any] = {"text": Text()}
    monkeypatch.setattr(stage, "SERVED", {name: (fields, head) for name, head in HEADS.items()})
    splits = {name: await write_history(redis, name, ALONE) for name in HEADS}
    async with serving(make_app(redis, Settings(home=tmp_path, tokens=TOKENS), **splits)) as base:
        yield base


def page_of(model: str) -> str:
    return f"/console/models/{model}/review"


async def pressed(page: Page) -> list[str]:
    """Returns the labels that are switched on."""
    found: list[str] = await page.locator("#panel [aria-pressed=true]").evaluate_all(
        "all => all.map((one) => one.dataset.label)"
    )
    return found


async def test_labels_are_switched_with_keys(chromium: str, site: str, redis: Redis) -> None:
    await put(redis, *(make("topics", number, *[0.1] * 10, 0.55, 0.9) for number in range(5)))
    async with reviewing(chromium, site, path=page_of("topics")) as page:
        first = await shown_key(page)
        assert await pressed(page) == ["food", "sport"]
        await expect(page.locator("#model-answer tr.answer th")).to_have_text(["sport", "food"])
        await press(page, "Enter")
        second = await shown_key(page)
        await press(page, "1", "a", "0")  # the first, the eleventh (food), the tenth
        assert await pressed(page) == [BIRDS[0], BIRDS[9], "sport"]
        await press(page, "0", "Enter")
        third = await shown_key(page)
        await press(page, "-")
        assert await pressed(page) == []
        await press(page, "Enter")
        fourth = await shown_key(page)
        await press(page, "h")
        assert await pressed(page) == []
        await press(page, "Enter")  # nothing was said yet
        await expect(page.get_by_role("alert")).to_contain_text("or say that none does")
        assert await shown_key(page) == fourth
        await page.get_by_role("button", name=f"{BIRDS[2]} 3", exact=True).click()
        await expect(page.get_by_role("alert")).to_be_hidden()
        await press(page, "Enter")  # the next item, not the button that was used
        works = await resolved(redis, 4, "topics")
        assert {key: work.labels for key, work in works.items()} == {
            first: ["food", "sport"],
            second: [BIRDS[0], "sport"],
            third: [],
            fourth: [BIRDS[2]],
        }
        assert await page.evaluate(LOW_CONTRAST) == []
        assert not await page.evaluate(IS_TOO_WIDE)
        await press(page, "z")
        assert await shown_key(page) == fourth


async def test_many_labels_are_found_by_typing(chromium: str, site: str, redis: Redis) -> None:
    await put(redis, *(make("many", number, 0.9, *[0.1] * 39) for number in range(2)))
    async with reviewing(chromium, site, path=page_of("many")) as page:
        first = await shown_key(page)
        await expect(page.locator("#panel [data-label]:visible")).to_have_text(["topic 0"])
        for number in (37, 12, 0):
            await press(page, "/")
            await page.keyboard.type(f"topic {number}")
            await press(page, "Enter")
        await expect(page.locator("#panel [data-label]:visible")).to_have_text(["topic 12", "topic 37"])
        await press(page, "Enter")
        works = await resolved(redis, 1, "many")
        assert works[first].labels == ["topic 12", "topic 37"]


async def test_several_values_are_accepted_or_written(chromium: str, site: str, redis: Redis) -> None:
    await put(redis, *(make("prices", number, 10.5, 20) for number in range(3)))
    async with reviewing(chromium, site, path=page_of("prices")) as page:
        first = await shown_key(page)
        await expect(page.locator("#model-answer")).to_contain_text("10.5 9.5 to 11.5")
        await press(page, "Enter")
        second = await shown_key(page)
        await press(page, "/")
        await page.keyboard.type("7")
        await press(page, "Tab")
        await page.keyboard.type("8.5")
        await press(page, "Enter")
        third = await shown_key(page)
        await press(page, "h", "Enter")
        assert await shown_key(page) == third
        works = await resolved(redis, 2, "prices")
        assert {key: work.values for key, work in works.items()} == {
            first: {"low": 10.5, "high": 20},
            second: {"low": 7, "high": 8.5},
        }
