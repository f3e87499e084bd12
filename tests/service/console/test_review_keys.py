"""Reviewing with the keyboard alone, in a real browser, and without waiting."""

from __future__ import annotations

import asyncio

import msgspec
from playwright.async_api import Route, expect

from rollout.review.counts import read_counts
from rollout.review.item import ReviewItem
from rollout.review.state import State
from rollout.store import Redis
from tests.review.kinds import make_topics
from tests.service.console.browser import tab_to
from tests.service.console.reviewing import press, resolved, reviewing, shown_key, until, work_of
from tests.service.console.stage import (
    NAME,
)
from tests.service.console.waiting import make_digit, make_hour, make_song, put


async def test_fifty_items_with_the_keyboard_alone(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_digit(number) for number in range(50)))
    async with reviewing(chromium, desk_site) as page:
        said: dict[str, str] = {}
        await expect(page.locator("#open")).to_have_text("50")
        for number in range(50):
            key = await shown_key(page)
            answer = str((number * 3) % 10)
            if number % 5 == 0:
                answer = key[-1]  # which is what the model says
                await press(page, "Enter")
            elif number % 5 == 1:
                await press(page, "/")
                await page.keyboard.type(answer)
                await press(page, "Enter")
            else:
                await press(page, answer)
            said[key] = answer
            await expect(page.locator("#decided")).to_have_text(str(number + 1))
        await expect(page.locator("#item")).to_have_text("Nothing to review.")
        works = await resolved(redis, 50)
        assert {key: work.label for key, work in works.items()} == said
        assert {review.reviewer for work in works.values() for review in work.reviews} == {NAME}
        await expect(page.locator("#open")).to_have_text("0")
        await put(redis, make_digit(50))
        await expect(page.locator("#item")).to_contain_text("key-50")  # by itself


async def test_the_next_item_never_waits_for_the_service(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_digit(number) for number in range(9)))
    async with reviewing(chromium, desk_site) as page:
        held: list[Route] = []
        answered = asyncio.Event()

        async def hold(route: Route) -> None:
            held.append(route)
            await answered.wait()
            await route.continue_()

        await shown_key(page)
        await page.route("**/review/decide", hold)
        decide = """key => {
            const text = () => document.getElementById("item").textContent;
            const before = text();
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
            return before !== text();
        }"""
        for number in range(4):
            assert await page.evaluate(decide, "7")  # in the same turn
            assert await page.locator("#decided").inner_text() == str(number + 1)
        took = await page.evaluate("performance.getEntriesByName('next item').map(({ duration }) => duration)")
        assert len(took) == 1
        assert took[0] < 100
        assert len(held) == 1  # one at a time, in order
        assert (await read_counts(redis, "digits")).states[State.RESOLVED] == {}
        answered.set()
        await resolved(redis, 4)


async def test_keys_act_neither_in_fields_nor_with_modifiers(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_digit(number) for number in range(3)))
    async with reviewing(chromium, desk_site) as page:
        first = await shown_key(page)
        await press(page, "Control+7", "Alt+7", "Meta+7", "Control+Enter", "Control+s", "Alt+h")
        await press(page, "/", "7", "s", "e", "z", "h", "?")
        assert await page.locator("#find").input_value() == "7sezh?"
        await press(page, "Escape")
        assert await page.locator("#find").input_value() == ""
        await page.get_by_text("Filters").click()
        await page.locator("#f-client").fill("7e")
        await press(page, "8", "e")
        await page.locator("#f-arm").focus()
        await press(page, "7", "s")
        assert await shown_key(page) == first
        await expect(page.locator("#decided")).to_have_text("0")
        assert not await page.locator("dialog[open]").count()
        await press(page, "Escape", "7")
        await expect(page.locator("#decided")).to_have_text("1")
        works = await resolved(redis, 1)
        assert works[first].label == "7"


async def test_a_button_that_was_used_is_not_pressed_again_by_enter(
    chromium: str, desk_site: str, redis: Redis
) -> None:
    await put(redis, *(make_digit(number) for number in range(3)))
    async with reviewing(chromium, desk_site) as page:
        first = await shown_key(page)
        await page.get_by_role("button", name="7", exact=True).click()
        second = await shown_key(page)
        await press(page, "Enter")
        works = await resolved(redis, 2)
        assert (works[first].label, works[second].label) == ("7", second[-1])
        await tab_to(page, "button[data-label='4']")
        third = await shown_key(page)
        await press(page, "Enter")
        assert (await resolved(redis, 3))[third].label == "4"


async def test_undo_brings_items_back_one_after_the_other(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_digit(number) for number in range(12)))
    async with reviewing(chromium, desk_site) as page:
        keys = []
        for _ in range(3):
            keys.append(await shown_key(page))
            await press(page, "7")
        await resolved(redis, 3)
        for key in reversed(keys):
            await press(page, "z")
            assert await shown_key(page) == key
        await expect(page.locator("#undo")).to_be_disabled()
        await expect(page.locator("#decided")).to_have_text("0")
        for _ in range(3):
            await press(page, "8")

        async def say_eight() -> bool:
            works = await resolved(redis, 3)
            return {key: work.label for key, work in works.items()} == dict.fromkeys(keys, "8")

        await until(say_eight)


async def test_undo_takes_back_what_was_not_sent_yet(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_digit(number) for number in range(6)))
    async with reviewing(chromium, desk_site) as page:
        held: list[Route] = []
        answered = asyncio.Event()

        async def hold(route: Route) -> None:
            held.append(route)
            await answered.wait()
            await route.continue_()

        await shown_key(page)
        await page.route("**/review/decide", hold)
        first = await shown_key(page)
        await press(page, "1")
        second = await shown_key(page)
        await press(page, "2", "z", "3")
        answered.set()
        works = await resolved(redis, 2)
        assert (works[first].label, works[second].label) == ("1", "3")
        assert [review.label for review in works[second].reviews] == ["3"]


async def test_skip_takes_a_reason_and_escalate_none(chromium: str, desk_site: str, redis: Redis) -> None:
    items = [make_digit(number) for number in range(4)]
    await put(redis, *items)
    async with reviewing(chromium, desk_site) as page:
        order = {item.key: item for item in items}
        first = order[await shown_key(page)]
        await press(page, "s")
        await expect(page.get_by_role("dialog")).to_contain_text("Skip: why?")
        await press(page, "e", "z", "7")  # none of the page's keys acts now
        await press(page, "Escape")
        await press(page, "s", "2")
        second = order[await shown_key(page)]
        await press(page, "s", "/")
        await page.keyboard.type("smudged, and 7 of them")
        await press(page, "Enter")
        third = order[await shown_key(page)]
        await press(page, "e")
        await expect(page.locator("#decided")).to_have_text("3")
        await shown_key(page)
        for item, state, why in (
            (first, State.SKIPPED, "None of the classes fits"),
            (second, State.SKIPPED, "smudged, and 7 of them"),
            (third, State.ESCALATED, "a reviewer leaves it to an adjudicator"),
        ):

            async def is_so(item: ReviewItem = item, state: State = state, why: str = why) -> bool:
                work = await work_of(redis, item)
                return (work.state, work.why) == (state, why)

            await until(is_so)


async def test_hidden_scores_stay_hidden(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_digit(n) for n in range(5)))
    async with reviewing(chromium, desk_site) as page:
        first = await shown_key(page)
        await expect(page.locator("#model-answer")).to_contain_text("v1 says")
        await expect(page.locator("#accept")).to_have_text(f"Accept {first[-1]} Enter")
        await expect(page.locator("#announced")).to_contain_text(f"The model says {first[-1]}.")
        await press(page, "h")

        async def is_hidden() -> None:
            await expect(page.locator("#model-answer")).to_be_hidden()
            await expect(page.locator("#model-answer-hidden")).to_be_visible()
            await expect(page.locator("#accept")).to_have_text("Accept Enter")
            await expect(page.locator("#accept")).to_be_disabled()
            await expect(page.locator("#announced")).not_to_contain_text("The model says")
            await expect(page.locator("#hide")).to_have_attribute("aria-pressed", "true")

        await is_hidden()
        await press(page, "Enter")  # nobody accepts what they do not see
        assert await shown_key(page) == first
        await press(page, "5")
        assert await shown_key(page) != first
        await is_hidden()
        await page.reload()
        await shown_key(page)
        await is_hidden()
        await press(page, "h")
        await expect(page.locator("#model-answer")).to_be_visible()
        await expect(page.locator("#accept")).to_be_enabled()


async def test_of_two_versions_nobody_sees_which_said_what(chromium: str, desk_site: str, redis: Redis) -> None:
    other = {"version": "v2", "label": "9", "confidence": 0.8, "scores": {"9": 0.8, "1": 0.2}}
    await put(redis, *(make_digit(n, reason="disagreement", pi=0.2, other=other) for n in range(5)))
    async with reviewing(chromium, desk_site) as page:
        first = await shown_key(page)
        said = page.locator("#model-answer")
        await expect(said).to_contain_text("One version says")
        await expect(said).to_contain_text("The other says")
        await expect(said).to_contain_text("80.0 %")
        await expect(said).not_to_contain_text("v1")
        await expect(said).not_to_contain_text("v2")
        item = page.locator("#item")
        await expect(item).to_contain_text("Two versions decide differently, for the trial of v2.")
        await expect(item).not_to_contain_text("v1")
        await expect(page.locator("#accept")).to_be_disabled()
        await press(page, "Enter")
        assert await shown_key(page) == first
        await press(page, "5")
        assert await shown_key(page) != first


async def test_a_value_is_accepted_or_written(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_hour(number) for number in range(4)))
    async with reviewing(chromium, desk_site, path="/console/models/departures/review") as page:
        first = await shown_key(page)
        await expect(page.locator("#item")).to_contain_text(
            "Friday, 12 July 2013, 16:00 UTC 2013-07-12T16:00:00Z"
        )
        await expect(page.locator("#model-answer")).to_contain_text("11.25 3.5 to 19")
        await press(page, "Enter")
        second = await shown_key(page)
        await press(page, "/")
        await page.keyboard.type("8.5")
        await press(page, "Enter")
        third = await shown_key(page)
        await press(page, "h")
        await expect(page.locator("#value")).to_have_value("")
        await press(page, "Enter")
        assert await shown_key(page) == third
        await page.locator("#value").fill("7")
        await press(page, "Enter")
        works = await resolved(redis, 3, "departures")
        assert [works[key].value for key in (first, second, third)] == [11.25, 8.5, 7]


async def test_what_has_no_panel_is_written_as_json(chromium: str, desk_site: str, redis: Redis) -> None:
    texts = msgspec.Raw(b'{"text":"Saffron, by the ton"}')
    await put(redis, *(make_topics(n, "food", "trade", model="topics", inputs=texts) for n in range(3)))
    async with reviewing(chromium, desk_site, "422", path="/console/models/topics/review") as page:
        first = await shown_key(page)
        await expect(page.locator("#model-answer")).to_contain_text("food and trade")
        await expect(page.locator("#json")).to_have_value('{\n  "labels": [\n    "food",\n    "trade"\n  ]\n}')
        await press(page, "Enter")
        second = await shown_key(page)
        fault = page.get_by_role("alert")
        await press(page, "h", "Enter")
        await expect(fault).to_have_text("Write an answer first, as JSON.")
        await page.keyboard.type('{"labels": ["sport"')
        await press(page, "Control+Enter")
        await expect(fault).to_contain_text("This is no JSON.")
        await page.keyboard.type("]")
        await expect(fault).to_be_hidden()
        await page.keyboard.type("}")
        await press(page, "Escape", "/", "End", "Control+Enter")
        third = await shown_key(page)
        await press(page, "/")
        await page.keyboard.type('{"labels": ["war"]}')
        await press(page, "Control+Enter")
        await expect(page.locator("#said")).to_contain_text("/labels/0 is no topic.")
        assert await shown_key(page) == third
        works = await resolved(redis, 2, "topics")
        assert {key: work.labels for key, work in works.items()} == {first: ["food", "trade"], second: ["sport"]}


async def test_many_classes_are_found_by_typing(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, *(make_song(number) for number in range(3)))
    async with reviewing(chromium, desk_site, path="/console/models/birds/review") as page:
        first = await shown_key(page)
        await press(page, "1", "9")  # there are more classes than keys
        await press(page, "t")
        await page.keyboard.type("tit")
        await expect(page.locator("#found li")).to_have_text(["blue tit", "coal tit", "great tit"])
        await press(page, "ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowUp")
        await expect(page.locator("[aria-selected=true]")).to_have_text("blue tit")
        await press(page, "ArrowDown")
        chosen = await page.locator("#find").get_attribute("aria-activedescendant")
        assert await page.locator(f"#{chosen}").inner_text() == "coal tit"
        await press(page, "Enter")
        second = await shown_key(page)
        await press(page, "/", "Enter")
        await page.keyboard.type("ostrich")
        await press(page, "Enter")
        await expect(page.locator("#found")).to_have_text("No such class")
        assert await shown_key(page) == second
        await page.locator("#find").fill("")
        await page.keyboard.type("robin")
        await page.locator("#found").get_by_text("robin").click()
        works = await resolved(redis, 2, "birds")
        assert (works[first].label, works[second].label) == ("coal tit", "robin")


async def test_a_sound_is_played_with_a_key(chromium: str, desk_site: str, redis: Redis) -> None:
    await put(redis, make_song(1))
    async with reviewing(chromium, desk_site, path="/console/models/birds/review") as page:
        await shown_key(page)
        assert await page.evaluate("document.querySelector('audio').duration") == 1
        await press(page, "p")
        await expect(page.locator("audio")).to_have_js_property("paused", False)
