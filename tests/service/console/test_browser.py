"""The console in a real browser: with the keyboard alone, in the dark, on a phone, live, and without scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Route, expect

from rollout.config import Settings
from rollout.routing.changes import ramp
from rollout.routing.control import carry_out, propose
from rollout.routing.split import Split
from rollout.routing.splits import read_split
from rollout.store import Redis
from tests.conftest import TRIAL as ON_TRIAL
from tests.conftest import Service, run_service, set_split
from tests.service.console.browser import (
    IS_TOO_WIDE,
    LOW_CONTRAST,
    browsing,
    log_in,
    serving,
    tab_to,
)
from tests.service.console.stage import (
    ADMIN,
    ALONE,
    MODEL,
    TOKENS,
    TRIAL,
    add,
    make_app,
    some_traffic,
    write_history,
)


@pytest.fixture
async def site(redis: Redis, tmp_path: Path) -> AsyncIterator[str]:
    """A console with a trial at 5 % and some traffic."""
    served = await write_history(redis, "digits", ALONE, TRIAL)
    for counts in (
        some_traffic("champion", "v1", 9000),
        some_traffic("control", "v1", 500),
        some_traffic("challenger", "v2", 500, seconds=0.002),
    ):
        await add(redis, counts, revision=2)
    async with serving(make_app(redis, Settings(home=tmp_path, tokens=TOKENS), digits=served)) as base:
        yield base


async def change_share(redis: Redis, share: float) -> Split:
    """Changes the share as somebody else would."""
    proposal = await propose(redis, "digits", lambda split: ramp(split or TRIAL, share))
    return await carry_out(redis, proposal, "grace", "a look at more")


async def test_the_share_is_changed_with_the_keyboard_alone(chromium: str, site: str, redis: Redis) -> None:
    async with browsing(chromium, site) as page:
        await log_in(page)
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
        await page.keyboard.press("Enter")
        await tab_to(page, "#share")
        await page.keyboard.press("Control+A")
        await page.keyboard.type("10")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Give v2 10 % of the clients?")
        await expect(page.locator(".consequence")).to_have_text(
            "Moves about 5 % of the clients from v1 to v2, and none back."
        )
        await page.keyboard.type("a calm day")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_contain_text("Revision 3 is in force")
        await expect(page.locator(".history li").first).to_contain_text("Share 5 % → 10 %")
        await expect(page.locator(".history li").first).to_contain_text("a calm day")
        await add(redis, {}, revision=3)
        await expect(page.locator(".facts")).to_contain_text("1 of 1 workers follow")
        assert page.url == site + MODEL  # what was done is said once
    split = await read_split(redis, "digits")
    assert split is not None
    assert (split.share, split.revision) == (0.1, 3)


async def test_figures_and_revisions_change_in_an_open_page(chromium: str, site: str, redis: Redis) -> None:
    async with browsing(chromium, site) as page:
        await log_in(page)
        champion = page.locator(".arms tbody tr").nth(1).locator("td").first
        await expect(champion).to_contain_text("9,000")
        await page.get_by_text("Confidences as a table").click()
        await page.locator("#client").fill("half of a cli")
        await add(redis, some_traffic("champion", "v1", 234), revision=2)
        await expect(champion).to_contain_text("9,234")
        await change_share(redis, 0.25)
        await expect(page.locator(".facts")).to_contain_text("Revision 3")
        await expect(page.get_by_role("status")).to_contain_text("The split is at revision 3 now.")
        await expect(page.locator(".lede")).to_contain_text("25 %")
        assert await page.evaluate("document.activeElement.id") == "client"
        assert await page.locator("#client").input_value() == "half of a cli"
        assert await page.locator("#live details").get_attribute("open") is not None


async def test_what_was_known_stays_when_nothing_new_is_to_be_had(chromium: str, site: str) -> None:
    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, body="")

    async def break_off(route: Route) -> None:
        await route.abort()

    async with browsing(chromium, site, "Failed to load resource") as page:
        await log_in(page)
        status, champion = page.get_by_role("status"), page.locator(".arms tbody tr").nth(1)
        await page.route("**/live", refuse)
        await expect(status).to_contain_text("Redis does not answer, showing what was known at ")
        await page.unroute("**/live")
        await expect(status).to_have_text("")
        await page.route("**/live", break_off)
        await expect(status).to_contain_text("The service does not answer, showing what was known at ")
        await expect(champion).to_contain_text("9,000")
        await page.unroute("**/live")
        await page.context.clear_cookies()
        await expect(status).to_contain_text("Your session is over. Log in again")


async def test_nobody_asks_for_a_page_that_nobody_sees(chromium: str, site: str) -> None:
    async with browsing(chromium, site) as page:
        await log_in(page)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        show = """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
        await page.evaluate(show, arg=True)
        await page.wait_for_timeout(500)
        asked.clear()
        await page.wait_for_timeout(2500)
        assert asked == []
        async with page.expect_request("**/live"):
            await page.evaluate(show, arg=False)
        await page.get_by_role("button", name="Pause").click()
        await page.wait_for_timeout(500)
        asked.clear()
        await page.wait_for_timeout(2500)
        assert asked == []
        async with page.expect_request("**/live"):
            await page.get_by_role("button", name="Go on").click()


@pytest.mark.parametrize(
    "look",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"color_scheme": "dark", "viewport": {"width": 375, "height": 740}, "has_touch": True, "is_mobile": True},
    ],
    ids=["light", "dark", "phone"],
)
async def test_every_page_can_be_read(chromium: str, site: str, redis: Redis, look: dict[str, Any]) -> None:
    await add(
        redis, {}, "a-replica-with-quite-a-long-name-7c9d8f:18", revision=1, breaker="open", refused="no key"
    )
    async with browsing(chromium, site, "404", **look) as page:

        async def check() -> None:
            assert await page.evaluate(LOW_CONTRAST) == []
            assert not await page.evaluate(IS_TOO_WIDE)
            paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert paper == ("rgb(255, 255, 255)" if look["color_scheme"] == "light" else "rgb(20, 23, 26)")

        await page.goto(MODEL)
        await check()
        await log_in(page)
        await check()
        for details in await page.locator("details").all():
            await details.locator("summary").click()
        await check()
        await page.get_by_role("button", name="50 %", exact=True).click()
        await page.wait_for_url("**/preview")
        await check()
        await page.get_by_role("link", name="Cancel").click()
        await page.get_by_role("button", name="Roll back v2").click()
        await page.wait_for_url("**/preview")
        await check()
        await page.goto("/console/nowhere")
        await check()
        await page.goto(f"{MODEL}/history")
        await check()
        await page.goto(f"{MODEL}?client=c-42")
        await check()


async def test_a_refusal_keeps_what_was_entered_and_the_page_alive(chromium: str, site: str) -> None:
    async with browsing(chromium, site, "422") as page:
        await log_in(page)
        await page.evaluate("document.getElementById('share').removeAttribute('max')")
        await page.locator("#share").fill("60")
        async with page.expect_request(f"**{MODEL}/live"):
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("alert")).to_contain_text(
                "above one half there is no trial left to run"
            )
        assert await page.evaluate("document.activeElement.id") == "share"
        assert await page.locator("#share").input_value() == "60"


async def test_it_works_without_scripts(chromium: str, site: str, redis: Redis) -> None:
    async with browsing(chromium, site, java_script_enabled=False, reduced_motion="reduce") as page:
        await page.goto(MODEL)
        await page.get_by_label("Token of a reviewer or admin").fill(ADMIN)
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_role("button", name="Promote v2 to champion").click()
        await page.get_by_label("Why").fill("better")
        await page.get_by_role("button", name="Promote v2").click()
        await expect(page.get_by_role("status")).to_contain_text("Revision 3 is in force")
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    split = await read_split(redis, "digits")
    assert split is not None
    assert split.champion == "v2"


async def test_somebody_else_was_first(chromium: str, site: str, redis: Redis) -> None:
    async with browsing(chromium, site, "412") as page:
        await log_in(page)
        await page.get_by_role("button", name="10 %", exact=True).click()
        await change_share(redis, 0.25)
        await page.get_by_label("Why").fill("a first step")
        await page.get_by_role("button", name="Give v2 10 % of the clients").click()
        await expect(page.get_by_role("alert")).to_contain_text("Changed by grace at")
        await page.get_by_role("button", name="Look again").click()
        await expect(page.locator(".consequence")).to_have_text(
            "Moves about 15 % of the clients from v2 to v1, and none back."
        )


async def test_a_link_from_elsewhere_leads_to_the_page(chromium: str, site: str) -> None:
    async def page_with_link(route: Route) -> None:
        await route.fulfill(content_type="text/html", body=f'<a href="{site}{MODEL}">digits</a>')

    async with browsing(chromium, site) as page:
        await log_in(page)
        await page.route("http://elsewhere.test/", page_with_link)
        await page.goto("http://elsewhere.test/")
        await page.get_by_text("digits").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("digits")


@pytest.fixture
def service(bundles: str, tmp_path: Path) -> Iterator[Service]:
    """The real service, whose split is changed here."""
    set_split(tmp_path, *ON_TRIAL)
    with run_service(tmp_path) as running:
        yield running


async def test_on_the_real_service(chromium: str, service: Service) -> None:
    async with browsing(chromium, service.base) as page:
        await log_in(page, service.token, "/console/models/digits")
        await expect(page.locator(".lede")).to_contain_text("v2 is on trial")
        await page.locator("#share").fill("12.5")
        await page.keyboard.press("Enter")
        await page.get_by_label("Why").fill("seen in a browser")
        await page.keyboard.press("Enter")
        await expect(page.locator(".history li").first).to_contain_text("12.5 %")
        await expect(page.locator(".facts")).to_contain_text("2 of 2 workers follow")
        await page.locator("#share").fill("10")
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Give v2 10 % of the clients").click()
        await expect(page.locator(".facts")).to_contain_text("2 of 2 workers follow")
