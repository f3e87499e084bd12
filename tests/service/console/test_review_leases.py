"""Who has which item, in real browsers: nobody twice, and nothing is lost unsaid."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Route, expect

from rollout.heads import Truth
from rollout.review import actions
from rollout.review.counts import read_counts
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.review.state import State
from rollout.store import Redis
from tests.conftest import TRIAL as ON_TRIAL
from tests.conftest import Service, run_service, set_split
from tests.service.console.browser import browsing, log_in
from tests.service.console.reviewing import DESK, press, resolved, reviewing, shown_key, until, work_of
from tests.service.console.stage import (
    NAME,
    REVIEWER,
)
from tests.service.console.waiting import make_digit, put


async def test_two_browsers_never_show_the_same_item(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_digit(number) for number in range(24)))
    seen: dict[str, list[str]] = {"Ann": [], "Bob": []}

    async def work(name: str) -> None:
        async with reviewing(chromium, desk_site, name=name) as page:
            while (
                await page.locator("#empty").count() == 0
                or "leased by others" not in await page.locator("#item").inner_text()
            ):
                if await page.locator("#item dl").count():
                    seen[name].append(await shown_key(page))
                    await press(page, "Enter")
                elif await page.locator("#item").inner_text() == "Nothing to review.":
                    break
                await page.wait_for_timeout(20)

    await asyncio.gather(work("Ann"), work("Bob"))
    assert seen["Ann"]
    assert seen["Bob"]
    assert len(set(seen["Ann"] + seen["Bob"])) == len(seen["Ann"] + seen["Bob"])


async def test_what_others_have_is_not_called_nothing(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_digit(number) for number in range(3)))
    await actions.claim(redis, "digits", "Somebody Else", 3)
    async with reviewing(chromium, desk_site) as page:
        await expect(page.locator("#item")).to_have_text("3 leased by others, nothing else to review.")
        await expect(page.locator("#announced")).to_have_text("3 leased by others, nothing else to review.")
        await press(page, "Enter", "7", "s", "e", "z")
        assert not await page.locator("dialog[open]").count()


async def test_a_lost_lease_is_told(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_digit(number) for number in range(3)))
    async with reviewing(chromium, desk_site, "409") as page:
        key = await shown_key(page)
        for leased in (await actions.claim(redis, "digits", NAME, 3)).items:
            await actions.release(redis, "digits", leased.item.id, leased.token)
        other = (await actions.claim(redis, "digits", "Somebody Else")).items[0]
        assert other.item.key == key
        await actions.resolve(redis, "digits", other.item.id, other.token, Truth(label="2"))
        await press(page, "7")
        said = page.locator("#said")
        await expect(said).to_contain_text(f"{key} of client-{key[4:]} was not recorded as 7. ")
        await expect(said).to_contain_text("the item is resolved")
        await expect(page.locator("#decided")).to_have_text("0")
        assert (await resolved(redis, 1))[key].label == "2"
        await page.get_by_role("button", name="Got it").click()
        await expect(said).to_have_text("")

        async def has_the_others_again() -> bool:
            return (await read_counts(redis, "digits")).states[State.LEASED] == {"low_confidence": 2}

        await until(has_the_others_again)
        await press(page, "7", "7")
        await resolved(redis, 3)
        await expect(said).to_have_text("")


async def test_nothing_is_lost_while_the_network_is_away(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_digit(number) for number in range(8)))

    async def break_off(route: Route) -> None:
        await route.abort()

    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, body="{}")

    async with reviewing(chromium, desk_site, "Failed to load resource") as page:
        await shown_key(page)
        await page.route("**/review/*", break_off)
        await press(page, "1", "2", "3")
        note = page.locator("#stalled")
        await expect(note).to_contain_text("The service does not answer. 3 decisions wait here")
        leaves = "() => !dispatchEvent(new Event('beforeunload', { cancelable: true }))"
        assert await page.evaluate(leaves)  # who leaves is asked whether they mean it
        await page.unroute("**/review/*")
        await page.route("**/review/*", refuse)
        await expect(note).to_contain_text("The service cannot take it now. 3 decisions wait here")
        await page.unroute("**/review/*")
        works = await resolved(redis, 3)
        assert sorted(work.label or "" for work in works.values()) == ["1", "2", "3"]
        await expect(page.locator("#said")).to_have_text("")
        await until(lambda: page.evaluate(f"!({leaves})()"))


async def test_an_answer_that_got_lost_is_no_lost_lease(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, make_digit(1), make_digit(2))
    async with reviewing(chromium, desk_site, "Failed to load resource") as page:
        lost = 0

        async def lose(route: Route) -> None:
            nonlocal lost
            lost += 1
            if lost > 1:
                return await route.continue_()
            await route.fetch()
            return await route.abort()

        await shown_key(page)
        await page.route("**/review/decide", lose)
        await press(page, "7", "8")
        await resolved(redis, 2)
        await expect(page.locator("#said")).to_have_text("")
        assert lost == 3


async def test_after_logging_in_again_elsewhere_decisions_go_on(
    chromium: str, desk_site: str, redis: Redis
) -> None:
    await put(redis, *(make_digit(number) for number in range(4)))
    async with reviewing(chromium, desk_site, "Failed to load resource") as page:
        await shown_key(page)
        await page.context.clear_cookies()
        await press(page, "7")
        await expect(page.locator("#stalled")).to_contain_text(
            "Your session is over: log in again in another tab"
        )
        other = await page.context.new_page()
        await log_in(other, REVIEWER, "/console")
        await other.close()
        await resolved(redis, 1)
        await expect(page.locator("#said")).to_have_text("")


async def test_leaving_gives_items_back_and_reloading_keeps_them(
    chromium: str, desk_site: str, redis: Redis
) -> None:
    await put(redis, *(make_digit(number) for number in range(6)))
    async with reviewing(chromium, desk_site) as page:
        await shown_key(page)
        assert (await read_counts(redis, "digits")).states[State.LEASED] == {"low_confidence": 6}
        for _ in range(4):
            await page.reload()
            await shown_key(page)
        await press(page, *"123456")
        await resolved(redis, 6)
        await expect(page.locator("#said")).to_have_text("")
        await put(redis, *(make_digit(number) for number in range(6, 9)))
        await expect(page.locator("#item dl")).to_be_visible()
        await page.goto("about:blank")

        async def are_open() -> bool:
            states = (await read_counts(redis, "digits")).states
            return states[State.OPEN] == {"low_confidence": 3} and not states[State.LEASED]

        await until(are_open)


async def test_filters_and_what_two_people_differ_on(chromium: str, desk_site: str, redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    await put(redis, make_digit(1), make_digit(2, version="v2"), make_digit(3))
    async with reviewing(chromium, desk_site) as page:
        await shown_key(page)
        await page.get_by_text("Filters").click()
        await page.get_by_label("Version").select_option("v2")
        await page.get_by_role("button", name="Filter", exact=True).click()
        assert await shown_key(page) == "key-2"
        await press(page, "2")
        await expect(page.locator("#item")).to_contain_text("Nothing that you may review")
    async with reviewing(chromium, desk_site, name="Otto Other", path=f"{DESK}?version=v2") as page:
        assert await shown_key(page) == "key-2"
        assert NAME not in await page.locator("#review").inner_text()
        await press(page, "3")
        await expect(page.locator("#escalated")).to_have_text("1")
    async with reviewing(chromium, desk_site, name="Judith Judge", path=f"{DESK}?escalated=1") as page:
        differing = page.locator(".differing")
        await expect(differing).to_contain_text(NAME)
        await expect(differing).to_contain_text("Otto Other")
        await expect(page.locator(".about")).to_contain_text("The reviewers differ.")
        await expect(page.locator("#escalate")).to_have_count(0)
        await press(page, "2")
        works = await resolved(redis, 1)
        assert works["key-2"].label == "2"
        await expect(page.locator("#item")).to_have_text("Nothing waits for an adjudicator.")


async def test_a_lease_that_ended_while_nobody_was_there_is_claimed_anew(
    chromium: str, desk_site: str, redis: Redis
) -> None:
    items = [make_digit(number) for number in range(3)]
    await put(redis, *items)
    async with reviewing(chromium, desk_site) as page:
        await page.clock.install()
        first = await shown_key(page)
        for item in items:
            work = await work_of(redis, item)
            assert work.lease is not None
            await actions.release(redis, "digits", item.id, work.lease.token)
        gone = next(item for item in items if item.key == first)
        taken = (
            await actions.claim(redis, "digits", "Somebody Else", filters={"client_id": gone.client_id})
        ).items
        assert [one.item.id for one in taken] == [gone.id]
        await page.clock.set_system_time(page_time := await page.evaluate("Date.now() + 301000"))
        assert page_time
        await press(page, "7")
        said = page.locator("#said")
        await expect(said).to_contain_text(f"Your time with {first} of client-{first[4:]} was over")
        await expect(said).to_contain_text("another reviewer may have it now")
        second = await shown_key(page)
        assert second != first
        await press(page, "7")
        assert list(await resolved(redis, 1)) == [second]


@pytest.fixture
def service(bundles: str, tmp_path: Path) -> Iterator[Service]:
    """The real service with two workers."""
    set_split(tmp_path, *ON_TRIAL)
    with run_service(tmp_path) as running:
        yield running


async def test_on_the_real_service(chromium: str, service: Service) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 32, 32)).tolist()
    rows = [
        {"client_id": f"c-{n}", "key": f"order-{n}", "inputs": {"image": image}} for n, image in enumerate(noise)
    ]
    with service.client() as client:
        answer = client.post("/v1/models/digits/predict", json={"instances": rows})
        queued = [one["key"] for one in answer.json()["predictions"] if one["review"] == "queued"]
    assert len(queued) > 5
    async with browsing(chromium, service.base, "503") as page:
        await log_in(page, service.token, DESK, NAME)
        said = {}
        for number in range(len(queued)):
            said[await shown_key(page)] = str(number % 10)
            await press(page, str(number % 10))
        await expect(page.locator("#item")).to_have_text("Nothing to review.")

        def labels() -> dict[str, str]:
            with service.admin() as admin:
                found = admin.get("/v1/models/digits/reviews?state=resolved").json()["reviews"]
            return {one["key"]: one["decision"]["label"] for one in found}

        async def are_there() -> bool:
            return labels() == said

        await until(are_there)
        assert sorted(said) == sorted(queued)
