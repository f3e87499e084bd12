"""What the reviewers' page asks of the service, and who may ask."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec

from rollout.config import Settings
from rollout.judge.policy import Policy
from rollout.review.access_log import read_access
from rollout.review.counts import read_counts
from rollout.review.others import keep_other
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.review.queue import read_item
from rollout.review.state import State, Work
from rollout.routing.splits import write_split
from rollout.store import Redis, client_of
from tests.service.console.stage import (
    ADMIN,
    APP,
    MODEL,
    NAME,
    REVIEWER,
    TOKENS,
    TRIAL,
    Browser,
    Stage,
    text_of,
)
from tests.service.console.waiting import make_digit, put

SCRIPT = {"Accept": "application/json"}


async def claim(browser: Browser, count: int = 10, **form: str) -> dict[str, Any]:
    answer = await ask(browser, "claim", count=str(count), **form)
    assert answer.status_code == 200, answer.text
    claimed: dict[str, Any] = answer.json()
    return claimed


async def ask(browser: Browser, path: str, **form: str) -> httpx.Response:
    data = {"csrf": browser.csrf} | form
    return await browser.post(f"{MODEL}/review/{path}", data=data, headers=SCRIPT)


async def decide(browser: Browser, item: dict[str, Any], did: str = "resolve", **said: str) -> httpx.Response:
    return await ask(browser, "decide", did=did, item=item["id"], token=item["token"], **said)


def truth(label: str) -> str:
    return msgspec.json.encode({"label": label}).decode()


async def work_of(redis: Redis, item: dict[str, Any]) -> Work:
    found = await read_item(redis, "digits", item["id"])
    assert found is not None
    return found[1]


async def test_an_item_is_claimed_rendered_and_decided_on(stage: Stage) -> None:
    await put(stage.redis, *(make_digit(number) for number in range(3)))
    async with stage.browser(REVIEWER) as browser:
        claimed = await claim(browser, 2)
        assert (claimed["open"], claimed["leased_by_others"], claimed["escalated"]) == (1, 0, 0)
        first, second = claimed["items"]
        assert first["name"] == "key-0 of client-0"
        assert (first["accepted"], first["said"]) == ({"label": "0"}, "0")
        assert '<img class="small" src="data:image/png;base64,' in first["html"]
        for words in ("The model was unsure", "client-0", "key-0", "v1 as onnx", "control"):
            assert words in first["html"]
        assert "40.0 %" in first["model_answer"]
        assert "40.0 %" not in first["html"]
        assert (await decide(browser, first, truth=truth("7"))).status_code == 200
        assert (await decide(browser, second, "skip", why=" cannot\n be read ")).status_code == 200
        work = await work_of(stage.redis, first)
        assert (work.state, work.label, work.reviews[0].reviewer) == (State.RESOLVED, "7", NAME)
        work = await work_of(stage.redis, second)
        assert (work.state, work.why) == (State.SKIPPED, "cannot be read")
        (third,) = (await claim(browser, 2))["items"]
        assert (await decide(browser, third, "escalate")).status_code == 200
        work = await work_of(stage.redis, third)
        assert (work.state, work.why) == (State.ESCALATED, "a reviewer leaves it to an adjudicator")


async def test_one_undoes_what_one_decided(stage: Stage) -> None:
    await put(stage.redis, make_digit(1))
    async with stage.browser(REVIEWER) as browser:
        (item,) = (await claim(browser))["items"]
        await decide(browser, item, truth=truth("2"))
        undone = await decide(browser, item, "undo")
        assert undone.status_code == 200
        assert (await work_of(stage.redis, item)).state is State.LEASED
        until = datetime.datetime.fromisoformat(undone.json()["until"])
        assert until > datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=290)
        assert (await decide(browser, item, truth=truth("3"))).status_code == 200
        assert (await work_of(stage.redis, item)).label == "3"


async def test_saying_the_same_twice_is_saying_it_once(stage: Stage) -> None:
    await put(stage.redis, make_digit(1), make_digit(2))
    async with stage.browser(REVIEWER) as browser:
        one, two = (await claim(browser))["items"]
        for item, did, said in (
            (one, "resolve", {"truth": truth("7")}),
            (one, "undo", {}),
            (two, "skip", {"why": "both"}),
        ):
            for _ in range(2):
                answer = await decide(browser, item, did, **said)
                assert answer.status_code == 200, answer.text
        await decide(browser, one, truth=truth("7"))
        for did, said in (("resolve", {"truth": truth("8")}), ("skip", {"why": "no"}), ("escalate", {})):
            answer = await decide(browser, one, did, **said)
            assert (answer.status_code, answer.json()["type"]) == (409, "urn:rollout:problem:lease-lost")
        work = await work_of(stage.redis, one)
        assert (work.label, len(work.reviews)) == ("7", 1)


async def test_what_is_for_a_trial_says_so_and_how_many_labels_that_wants(stage: Stage) -> None:
    other = {"version": "v2", "label": "8", "confidence": 0.9, "scores": {"3": 0.1, "8": 0.9}}
    item = make_digit(1)
    await put(stage.redis, item)
    await keep_other(stage.redis, msgspec.structs.replace(item, reason="disagreement", other=other), 60)
    split = await stage.split()
    await write_split(
        stage.redis, "digits", msgspec.structs.replace(split, policy=Policy(compare="disagreements"))
    )
    async with stage.browser(REVIEWER) as browser:
        claimed = await claim(browser)
        wanted = "Nobody knows yet how many labels the trial of v2 takes; 0 of 0 disagreements are labelled."
        assert claimed["wanted"] == wanted
        (shown,) = claimed["items"]
        assert "Two versions decide differently, for the trial of v2" in shown["html"]
        for told in ("unsure", "go to review"):
            assert told not in shown["html"] + shown["model_answer"], "it was the champion that was"
        assert shown["accepted"] is None, "who decides between two takes neither unseen"
        assert "One version says" in shown["model_answer"]
        assert "v1" not in shown["model_answer"] + shown["html"]
        assert (await decide(browser, shown, truth=truth("8"))).json()["wanted"] == wanted, "after each label"


async def test_what_a_page_had_ahead_is_given_back_unless_it_was_claimed_again(stage: Stage) -> None:
    await put(stage.redis, *(make_digit(number) for number in range(3)))
    async with stage.browser(REVIEWER) as browser:
        items = (await claim(browser))["items"]

        async def release(*given: dict[str, Any]) -> httpx.Response:
            leases = [(item["id"], item["token"], item["until"]) for item in given]
            return await ask(browser, "release", leases=msgspec.json.encode(leases).decode())

        again = (await claim(browser, 1))["items"][0]
        assert again["id"] == items[0]["id"]
        assert (await release(*items, {"id": "none", "token": "", "until": ""})).status_code == 200
        states = [(await work_of(stage.redis, item)).state for item in items]
        assert states == [State.LEASED, State.OPEN, State.OPEN]
        assert (await release(again)).status_code == 200
        assert (await work_of(stage.redis, again)).state is State.OPEN
        assert (await ask(browser, "release", leases="[1]")).status_code == 422


async def test_two_reviewers_never_have_the_same_item(stage: Stage) -> None:
    await put(stage.redis, *(make_digit(number) for number in range(5)))
    async with stage.browser(REVIEWER) as one, stage.browser() as two:
        await two.log_in(REVIEWER, "Otto Other")
        mine = await claim(one, 3)
        others = await claim(two, 3)
        assert (others["open"], others["leased_by_others"]) == (0, 3)
        ids = [item["id"] for claimed in (mine, others) for item in claimed["items"]]
        assert len(set(ids)) == len(ids) == 5
        stolen = mine["items"][0] | {"token": others["items"][0]["token"]}
        answer = await decide(two, stolen, truth=truth("1"))
        assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
        assert (await work_of(stage.redis, stolen)).state is State.LEASED


async def test_filters_and_the_adjudicators_list(stage: Stage) -> None:
    await write_policy(stage.redis, "digits", ReviewPolicy(required_reviews=2))
    await put(stage.redis, make_digit(1), make_digit(2, version="v2", arm="challenger", reason="audit", pi=0.1))
    async with stage.browser(REVIEWER) as one, stage.browser() as two, stage.browser() as judge:
        await two.log_in(REVIEWER, "Otto Other")
        await judge.log_in(ADMIN, "Judith Judge")
        wanted: list[dict[str, Any]] = [
            {"version": "v2"},
            {"arm": "challenger"},
            {"reason": "audit"},
            {"label": "2"},
            {"client_id": "client-2", "version": ""},
        ]
        for filters in wanted:
            (item,) = (await claim(one, **filters))["items"]
            assert item["name"] == "key-2 of client-2"
        assert (await claim(one, label="5"))["items"] == []
        await decide(one, item, truth=truth("2"))
        (item,) = (await claim(two, label="2"))["items"]
        assert NAME not in item["html"]
        await decide(two, item, truth=truth("3"))
        assert (await work_of(stage.redis, item)).state is State.ESCALATED
        claimed = await claim(judge, escalated="1")
        (item,) = claimed["items"]
        assert re.search(rf"{NAME}.*<b>2</b>.*Otto Other.*<b>3</b>", item["html"], re.S)
        await decide(judge, item, truth=truth("3"))
        assert (await work_of(stage.redis, item)).label == "3"
        page = text_of(await judge.get(f"{MODEL}/review?escalated=1&version=v2"))
        assert "as adjudicator" in page
        assert "Filters 1" in page
        assert 'value="v2" selected' in (await judge.get(f"{MODEL}/review?version=v2")).text


async def test_requests_that_make_no_sense(stage: Stage) -> None:
    await put(stage.redis, make_digit(1))
    async with stage.browser(REVIEWER) as browser:
        for count in ("0", "51", "x", "", "9" * 5000, "²"):
            assert (await ask(browser, "claim", count=count)).status_code == 422
        (item,) = (await claim(browser))["items"]
        for did, said in (
            ("dance", {}),
            ("resolve", {}),
            ("resolve", {"truth": truth("11")}),
            ("resolve", {"truth": '{"value": 3}'}),
            ("resolve", {"truth": '{"label": "1", "more": 1}'}),
            ("resolve", {"truth": "nan"}),
            ("resolve", {"truth": f'{{"tensors": {{"a": {"[" * 5000}{"]" * 5000}}}}}'}),
            ("resolve", {"truth": '{"heads": {"a":' * 1200 + "1" + "}}" * 1200}),
            ("skip", {"why": " "}),
        ):
            answer = await decide(browser, item, did, **said)
            assert answer.status_code == 422, (did, said)
            assert answer.json()["detail"]
        assert (await ask(browser, "decide", did="undo", item="none", token="t")).status_code == 404
        assert (await work_of(stage.redis, item)).state is State.LEASED


async def test_nobody_reviews_without_a_name(stage: Stage) -> None:
    await put(stage.redis, make_digit(1))
    async with stage.browser() as browser:
        for name in ("", "  ", "x" * 65, "a\x00b", "tab\u200bbed"):
            answer = await browser.post("/console/login", data={"token": REVIEWER, "name": name})
            assert answer.status_code == 422
            assert "Say your name" in text_of(answer)
            assert not browser.cookies
        await browser.log_in(ADMIN)
        form = browser.csrf
        page = await browser.get(f"{MODEL}/review?label=1")
        assert "Who reviews?" in text_of(page)
        assert (await ask(browser, "claim", count="1")).status_code == 403
        wanted = re.search(r'name="next" value="([^"]*)"', page.text)
        assert wanted is not None
        refused = await browser.post("/console/name", data={"csrf": form, "name": " ", "next": wanted[1]})
        assert refused.status_code == 422
        answer = await browser.post("/console/name", data={"csrf": form, "name": " Ada  L. ", "next": wanted[1]})
        assert answer.headers["location"] == f"{MODEL}/review?label=1"
        assert "Ada L. · admin" in text_of(await browser.get(answer.headers["location"]))
        (item,) = (await claim(browser))["items"]  # forms that were open before are good still
        await decide(browser, item, truth=truth("1"))
        assert (await work_of(stage.redis, item)).reviews[0].reviewer == "Ada L."
        assert (await browser.post("/console/name", data={"csrf": form, "name": "Eve"})).status_code == 403


async def test_apps_and_strangers_get_no_page_and_no_item(stage: Stage) -> None:
    await put(stage.redis, make_digit(1))
    async with stage.browser() as browser:
        assert (await browser.log_in(APP)).status_code == 403
        for path in ("review/claim", "review/decide", "review/release"):
            answer = await browser.post(f"{MODEL}/{path}", data={"count": "1"})
            assert answer.headers["location"] == "/console/login"
        answer = await browser.get(f"{MODEL}/review")
        assert answer.headers["location"].startswith("/console/login")
    async with stage.browser(REVIEWER) as browser:
        browser.csrf = "0" * 64
        assert (await ask(browser, "claim", count="1")).status_code == 403
        assert (await browser.get("/console/models/none/review")).status_code == 404
    counts = await read_counts(stage.redis, "digits")
    assert counts.states[State.OPEN] == {"low_confidence": 1}


async def test_who_saw_what_is_noted(stage: Stage) -> None:
    await put(stage.redis, make_digit(1), make_digit(2))
    async with stage.browser(REVIEWER) as browser:
        items = (await claim(browser))["items"]
    (seen,) = [one async for one in read_access(stage.redis, "digits")]
    assert (seen.who, seen.role, seen.did) == (NAME, "reviewer", "claim")
    assert seen.ids == [item["id"] for item in items]


async def test_every_page_says_how_much_is_open(stage: Stage, admin: Browser) -> None:
    assert "Review 0 open items" in text_of(await admin.get(MODEL))
    await put(stage.redis, *(make_digit(number) for number in range(1234)))
    page = text_of(await admin.get(MODEL))
    assert "Review 1,234 open items" in page
    assert "Review 1,234" in text_of(await admin.get(f"{MODEL}/history"))
    assert f'href="{MODEL}/review"' in (await admin.get(f"{MODEL}/history")).text


async def test_the_page_without_redis(tmp_path: Path) -> None:
    away = client_of("redis://127.0.0.1:1/0")
    stage = Stage(away, Settings(home=tmp_path, tokens=TOKENS), TRIAL)
    async with stage.browser(REVIEWER) as browser:
        page = await browser.get(f"{MODEL}/review")
        assert page.status_code == 200
        found = re.search(r'name="csrf" value="(\w+)"', page.text)
        assert found is not None
        browser.csrf = found[1]
        answer = await ask(browser, "claim", count="1")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:rollout:problem:store-unavailable")
    await away.aclose()


async def test_the_page_needs_nothing_that_the_policy_forbids(stage: Stage) -> None:
    await put(stage.redis, make_digit(1))
    async with stage.browser(REVIEWER) as browser:
        (item,) = (await claim(browser))["items"]
        page = (await browser.get(f"{MODEL}/review")).text + item["html"] + item["model_answer"]
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=\"/console/static/)|javascript:", page)


async def test_the_page_says_that_it_takes_a_script(stage: Stage) -> None:
    async with stage.browser(REVIEWER) as browser:
        page = await browser.get(f"{MODEL}/review")
        assert re.search(r"<noscript>.*Reviewing takes a script.*</noscript>", page.text)


async def test_what_an_item_says_is_shown_and_not_run(stage: Stage) -> None:
    evil = "<img src=x onerror=alert(1)>"
    await put(stage.redis, make_digit(1, client_id=evil, key=evil, version=evil))
    async with stage.browser(REVIEWER) as browser:
        (item,) = (await claim(browser))["items"]
        for html in (item["html"], item["model_answer"], (await browser.get(f"{MODEL}/review")).text):
            assert "<img src=x" not in html
