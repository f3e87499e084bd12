"""Kinds that are decided with a number or with JSON, and spans and boxes as heads of one model, with the keyboard."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from playwright.async_api import Page, expect

from rollout import Boxes, Embedding, Heads, Image, Quantiles, Score, Tensors, Text, TokenLabels
from rollout.config import Settings
from rollout.heads import Head, Truth
from rollout.heads.tensors import Output
from rollout.review.item import ReviewItem
from rollout.store import Redis
from tests.review.items import make_item, written
from tests.service.console import stage
from tests.service.console.browser import IS_TOO_WIDE, LOW_CONTRAST, serving
from tests.service.console.reviewing import press, resolved, reviewing, shown_key
from tests.service.console.stage import ALONE, TOKENS, make_app, write_history
from tests.service.console.waiting import put

POSTER = Heads(
    heads={
        "names": TokenLabels(labels=["name", "place"], positions=64),
        "lamps": Boxes(labels=["lamp", "wall"], candidates=9, most=3, review_threshold=0.6),
        "length": Quantiles(levels=[0.1, 0.5, 0.9], widest=3),
    }
)
KINDS: dict[str, Head] = {
    "quantiles": Quantiles(levels=[0.1, 0.5, 0.9], widest=3),
    "score": Score(),
    "vectors": Embedding(size=3),
    "tensors": Tensors(outputs_by_name={"mask": Output((2, 2)), "confidence": Output()}, threshold=0.8),
    "posters": POSTER,
}
INPUTS: Mapping[str, Any] = {
    "text": "Bob in Rome",
    "photo": [[20 + row + column for column in range(48)] for row in range(32)],
}
POSTED = {
    "names": {"spans": [{"start": 0, "end": 3, "label": "name", "confidence": 0.9}]},
    "lamps": {"boxes": [{"label": "lamp", "score": 0.5, "box": [0.1, 0.2, 0.4, 0.5]}]},
    "length": {"value": 2.0, "quantiles": {"0.1": 1.0, "0.5": 2.0, "0.9": 4.5}, "interval": [1.0, 4.5]},
}


def make(model: str, number: int, *scores: float) -> ReviewItem:
    """Returns an item that its model has given these scores."""
    head = KINDS[model]
    answer: dict[str, Any] = {"heads": POSTED}
    if scores:
        (row,) = head.numbers(np.array([scores], np.float32)).tolist()
        answer = msgspec.to_builtins(head.answer(row)._asdict())
    names = ("text", "photo") if head is POSTER else ("text",)
    inputs = msgspec.Raw(msgspec.json.encode({name: INPUTS[name] for name in names}))
    return make_item(number, model=model, task=written(head), answer=answer, threshold=None, inputs=inputs)


@pytest.fixture
async def site(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A console with a model of each kind."""
    text: dict[str, Any] = {"text": Text()}
    fields = {name: text | ({"photo": Image(height=32, width=48)} if name == "posters" else {}) for name in KINDS}
    monkeypatch.setattr(stage, "SERVED", {name: (fields[name], head) for name, head in KINDS.items()})
    splits = {name: await write_history(redis, name, ALONE) for name in KINDS}
    async with serving(make_app(redis, Settings(home=tmp_path, tokens=TOKENS), **splits)) as base:
        yield base


async def look(page: Page, name: str) -> None:
    """Writes what is seen where somebody wants to look at it; it has to be readable in any case."""
    if folder := os.environ.get("SCREENSHOTS"):
        await page.screenshot(path=f"{folder}/{name}.png", full_page=True)
    assert await page.evaluate(LOW_CONTRAST) == []
    assert not await page.evaluate(IS_TOO_WIDE)


def path_of(model: str) -> str:
    return f"/console/models/{model}/review"


@pytest.mark.parametrize(
    ("model", "scores", "says", "accepted"),
    # A score says how rows are ordered, so there is nothing to accept: people write theirs.
    [("quantiles", (1.0, 2.0, 4.5), "2 1 to 4.5", 2.0), ("score", (0.75,), "0.75", None)],
)
async def test_a_number_is_accepted_or_written(
    chromium: str,
    site: str,
    redis: Redis,
    model: str,
    scores: tuple[float, ...],
    says: str,
    accepted: float | None,
) -> None:
    await put(redis, *(make(model, number, *scores) for number in range(2)))
    async with reviewing(chromium, site, path=path_of(model)) as page:
        first = await shown_key(page)
        await expect(page.locator("#model-answer")).to_contain_text(says)
        await look(page, f"panel-{model}")
        await press(page, "Enter")
        if accepted is None:
            assert await shown_key(page) == first
            await press(page, "/")
            await page.keyboard.type("0.5")
            await press(page, "Enter")
        second = await shown_key(page)
        await press(page, "/")
        await page.keyboard.type("3.5")
        await press(page, "Enter")
        works = await resolved(redis, 2, model)
    assert {key: work.value for key, work in works.items()} == {first: accepted or 0.5, second: 3.5}


@pytest.mark.parametrize(
    ("model", "scores", "shown", "corrected"),
    [
        ("vectors", (0.5, 0.25, -1.0), "[0.5, 0.25, -1]", Truth(vector=[1.0, 0.0, 0.5])),
        (
            "tensors",
            (0.0, 1.0, 1.0, 0.0, 0.5),
            "[0, 1]",
            Truth(tensors={"mask": [[1, 1], [1, 0]]}),
        ),
    ],
)
async def test_what_has_no_form_of_its_own_is_written_as_json(
    chromium: str, site: str, redis: Redis, model: str, scores: tuple[float, ...], shown: str, corrected: Truth
) -> None:
    await put(redis, *(make(model, number, *scores) for number in range(2)))
    written_down = msgspec.json.encode(corrected).decode()
    async with reviewing(chromium, site, "422", path=path_of(model)) as page:
        first = await shown_key(page)
        assert shown in await page.locator("#json").input_value()
        await look(page, f"panel-{model}")
        await press(page, "Enter")
        second = await shown_key(page)
        await press(page, "/", "Control+a")
        await page.keyboard.type('{"no": 1}')
        await press(page, "Control+Enter")
        await expect(page.get_by_role("status").first).to_contain_text("unknown field `no`")
        assert await shown_key(page) == second
        await press(page, "/", "Control+a")
        await page.keyboard.insert_text(written_down)
        await press(page, "Control+Enter")
        works = await resolved(redis, 2, model)
    assert works[second].truth == corrected
    name, given = ("vector", [0.5, 0.25, -1.0]) if model == "vectors" else ("tensors", None)
    said = msgspec.to_builtins(works[first].truth)[name]
    assert said == given or said["mask"] == [[0, 1], [1, 0]]


async def test_spans_and_boxes_are_heads_like_others(chromium: str, site: str, redis: Redis) -> None:
    await put(redis, make("posters", 1), make("posters", 2))
    async with reviewing(chromium, site, path=path_of("posters")) as page:
        first = await shown_key(page)
        for name in ("names", "lamps", "length"):
            await expect(page.locator("[aria-current=step] b")).to_have_text(name)
            await look(page, f"panel-posters-{name}")
            await press(page, "Enter")
        second = await shown_key(page)
        assert second != first
        works = await resolved(redis, 1, "posters")
    heads = works[first].truth.heads
    assert heads is not None
    assert heads.keys() == {"names", "lamps", "length"}
