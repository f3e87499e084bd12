"""All models at a glance: trial and verdict, open items, drift and errors, over a day and a week."""

from __future__ import annotations

import math
import os
import re
import time
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from playwright.async_api import ViewportSize, expect

from rollout.config import Settings
from rollout.keys import Keys
from rollout.routing.drift import keep_drift
from rollout.routing.timeline import RESOLUTIONS, Moment
from rollout.store import Redis
from service.console.timeline import HEIGHT, WIDTH, course
from tests.routing.drifts import arm_drift, view
from tests.service.console.browser import IS_TOO_WIDE, LOW_CONTRAST, browsing, log_in, serving
from tests.service.console.stage import (
    ADMIN,
    ALONE,
    REVIEWER,
    TOKENS,
    TRIAL,
    Stage,
    add,
    make_app,
    some_traffic,
    text_of,
    write_history,
)


async def some_week(redis: Redis, model: str, seed: int, errors: int = 0) -> None:
    """Writes a week as workers would have: quieter at night, with a gap and an hour of errors."""
    now = int(time.time())
    pipeline = redis.pipeline(transaction=False)
    for length in RESOLUTIONS.values():
        last = now // length.seconds * length.seconds
        for number in range(length.shown):
            at = last - number * length.seconds
            if 40 <= number < 52:
                continue
            rows = int(
                length.seconds
                * (2 + math.sin(at / 86400 * 2 * math.pi + seed) + 0.3 * math.sin(number * 7 + seed))
            )
            counts = {
                "predictions": rows,
                "seconds.3": rows * 9 // 10,
                "seconds.5": rows // 10,
                "reviewed": rows // 25,
            }
            if 20 <= number < 24:
                counts["errors"] = errors * length.seconds // 300
            pipeline.hset(Keys(model).timeline(length.name, at), mapping={k: v for k, v in counts.items() if v})
    await pipeline.execute()


@pytest.fixture
async def many(redis: Redis, tmp_path: Path) -> Stage:
    """Four models: one on trial, one drifting, one with errors, one that nobody asks."""
    splits = {"digits": await write_history(redis, "digits", ALONE, TRIAL)}
    splits |= {name: await write_history(redis, name, ALONE) for name in ("languages", "birds", "departures")}
    for number, name in enumerate(("digits", "languages", "birds")):
        await some_week(redis, name, number, errors=40 if name == "birds" else 0)
    await add(redis, some_traffic("champion", "v1", 9000))
    await keep_drift(redis, msgspec.structs.replace(view(arm_drift(2000, 30)), model="languages"))
    stage = Stage(redis, Settings(home=tmp_path, tokens=TOKENS), splits["digits"])
    stage.app = make_app(redis, Settings(home=tmp_path, tokens=TOKENS), **splits)
    return stage


def test_gaps_are_gaps_and_lines_stay_in_their_chart() -> None:
    moments = [
        Moment(at * 300, 300, rows, rows, 0, 0, [rows, *[0] * 13])
        for at, rows in enumerate([0, 3, 6, 0, 0, 9] * 48)
    ]
    found = course(moments, "day")
    rate, errors, late, review = found.lines
    assert rate.text == "Predictions a second: 0.03 at last, 0.03 at most"
    assert len(rate.lines) == 1
    assert len(late.lines) == 96, "nobody knows how late nothing was"
    assert (errors.lines, review.lines) == ((), ())
    assert errors.text == "Failed requests: nothing but 0"
    points = [
        tuple(map(float, point.split(",")))
        for line in (rate, late)
        for part in line.areas
        for point in part.split()
    ]
    assert all(0 <= x <= WIDTH + 2 and 0 <= y <= HEIGHT for x, y in points)
    assert found.rows == 18 * 48
    nothing = course([Moment(at, 300) for at in range(288)], "day")
    assert [line.text for line in nothing.lines][1] == "Failed requests: nothing yet"


async def test_every_model_has_a_card(many: Stage) -> None:
    async with many.browser(ADMIN) as browser:
        answer = await browser.get("/console")
        birds, departures, digits, languages = (
            part.removesuffix("</section>") for part in answer.text.split("<section")[1:]
        )
        said = [
            re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", card)) for card in (digits, languages, birds, departures)
        ]
        assert "challenger v2 for 5 % of the clients" in said[0]
        assert "hold: " in said[0]
        assert "Drift: passenger.age moved" in said[1]
        assert "nothing on trial" in said[2]
        assert "160 failed requests, last 24 hours" in said[2]
        assert "0 failed requests" in said[3]
        assert (digits.count("<polyline"), departures.count("<polyline")) == (5, 0)
        assert "Predictions a second: nothing yet" in departures or "nothing but 0" in departures
        week = await browser.get("/console?span=week")
        assert "1,920 failed requests, last 7 days" in text_of(week)
        assert 'href="/console?span=week" aria-current="true"' in week.text
        model = await browser.get("/console/models/birds?span=week")
        assert model.text.count("<polyline") >= 7


async def test_reviewers_see_what_is_to_review_and_nothing_of_a_split(many: Stage) -> None:
    async with many.browser(REVIEWER) as browser:
        answer = await browser.get("/console?span=week")
        assert "polyline" not in answer.text
        assert re.search(r"\bv[12]\b", text_of(answer)) is None
        assert (await browser.get("/console/models/birds")).status_code == 403


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)])
async def test_it_looks_well_in_light_and_dark_and_on_a_phone(
    chromium: str, many: Stage, scheme: Literal["light", "dark"], width: int
) -> None:
    viewport: ViewportSize = {"width": width, "height": 900}
    async with (
        serving(many.app) as base,
        browsing(chromium, base, color_scheme=scheme, viewport=viewport) as page,
    ):
        await log_in(page, ADMIN, "/console")
        await expect(page.get_by_role("img", name="Failed requests")).to_have_count(4)
        await page.get_by_role("link", name="Last 7 days").click()
        await page.wait_for_url("**/console?span=week")
        assert not await page.evaluate(IS_TOO_WIDE)
        assert await page.evaluate(LOW_CONTRAST) == []
        if shots := os.environ.get("TEST_SCREENSHOTS"):
            await page.screenshot(path=f"{shots}/overview-{scheme}-{width}.png", full_page=True)
