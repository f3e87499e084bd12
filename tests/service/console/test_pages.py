"""What the console's pages say, and what they may load."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import msgspec

from rollout.config import Settings
from rollout.routing.control import carry_out, propose_rollback
from rollout.routing.split import Rule
from rollout.routing.splits import write_split
from rollout.store import Redis, client_of
from service.console.render import POLICY
from tests.service.console.stage import (
    ADMIN,
    ALONE,
    MODEL,
    REVIEWER,
    TOKENS,
    TRIAL,
    Browser,
    Stage,
    add,
    make_app,
    some_traffic,
    text_of,
    write_history,
)
from tests.service.console.waiting import make_digit, put


async def test_headers_of_every_page(admin: Browser) -> None:
    for path in ("/console", "/console/login", MODEL, f"{MODEL}/live", "/console/models/none", "/console/x/y"):
        headers = (await admin.get(path)).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY


async def test_pages_need_nothing_that_the_policy_forbids(admin: Browser) -> None:
    for path in (MODEL, "/console/models/none"):
        page = (await admin.get(path)).text
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=\"/console/static/)|javascript:", page)
        for link in re.findall(r'(?:href|src|action)="([^"]*)"', page):
            assert link.startswith(("/console", "#", "data:image/svg+xml"))


async def test_a_challenger_without_a_gate_is_told(admin: Browser, redis: Redis, tmp_path: Path) -> None:
    assert "v2 is on trial without a gate: rollout gate digits:v2 --against v1" in text_of(await admin.get(MODEL))
    async with Stage(redis, Settings(home=tmp_path, tokens=TOKENS), ALONE).browser(ADMIN) as browser:
        assert "gate" not in text_of(await browser.get(MODEL))


async def test_static_files_may_be_kept_under_the_name_of_their_content(admin: Browser) -> None:
    page = (await admin.get("/console/login")).text
    links = re.findall(r'"(/console/static/[^"]+)"', (await admin.get(MODEL)).text)
    assert len(links) == 2, page
    for link in links:
        answer = await admin.get(link)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert (await admin.get(f"{link}x")).headers["cache-control"] == "no-store"
    assert (await admin.get("/console/static/..%2fapp.py")).status_code == 404
    assert (await admin.get("/console/static/none.css")).status_code == 404


async def test_errors_are_pages(admin: Browser) -> None:
    for method, path, status, sentence in (
        ("GET", "/console/models/none", 404, "There is no model 'none'"),
        ("GET", "/console/nothing/here", 404, "There is nothing at /console/nothing/here"),
        ("PUT", MODEL, 405, "takes GET, not PUT"),
        ("GET", f"{MODEL}/change", 405, "takes POST, not GET"),
    ):
        answer = await admin.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        assert sentence in text_of(answer)
        assert "admin" in text_of(answer)
    assert (await admin.put(MODEL)).headers["allow"] == "GET"


async def test_the_page_of_a_model(stage: Stage, admin: Browser) -> None:
    await add(stage.redis, some_traffic("champion", "v1", 9000), revision=2)
    await add(stage.redis, some_traffic("control", "v1", 500), revision=2)
    challenger = some_traffic("challenger", "v2", 500, seconds=0.002) | {
        ("challenger", "v2", "failures"): 5,
        ("challenger", "v2", "fallbacks.timeout"): 5,
        ("champion", "v1", "agreed"): 997,
        ("champion", "v1", "disagreed"): 3,
        ("challenger", "v3", "predictions"): 12,
    }
    await add(stage.redis, challenger, "replica-2:9", revision=1, refused="v2 is not signed", breaker="open")
    page = text_of(await admin.get(MODEL))
    for sentence in (
        "v1 serves; v2 is on trial with 5 % of the clients.",
        "1 of 2 workers follow revision 2.",
        "replica-2:9 stays at revision 1: v2 is not signed; asks the champion instead of the challenger",
        "Clients 90 % 5 % 5 %",
        "Failed 0 % 0 % 1 % 5 Fell back – – 5 timeout",
        "challenger v3 with 12 predictions",
        "In shadow, v2 decided as v1 did on 99.70 % of 1,000 rows",
        "Empty: no version was rolled back.",
        "None: the hash alone decides.",
        "grace Trial of v2 with 5 % the convolutional network",
        "ada Champion v1 the first version",
    ):
        assert sentence in page, page
    assert re.search(r"Predictions 9,000 \d+/s 500 1.\d/s 500 1.\d/s", page)
    assert "0.99 to 1" in page
    assert "from 0.5 to 0.9" in (await admin.get(MODEL)).text


async def test_quarantine_and_rules_in_words(stage: Stage, admin: Browser) -> None:
    await carry_out(stage.redis, await propose_rollback(stage.redis, "digits"), "grace", "wrong sevens")
    split = await stage.split()
    rules = (Rule(arm="challenger", clients=("tester-*",)), Rule(arm="champion", segments=("enterprise",)))
    await write_split(stage.redis, "digits", msgspec.structs.replace(split, rules=rules))
    page = text_of(await admin.get(MODEL))
    assert "v1 serves everybody; nothing is on trial." in page
    assert re.search(r"v2 was rolled back on [\d: -]+ by grace wrong sevens", page)
    assert "Pins clients tester-* to the challenger." in page
    assert "Keeps segments enterprise out of the trial." in page
    assert "Took v2 off trial, everybody gets v1" in page
    assert "Roll back" not in page


async def test_looking_up_a_client(stage: Stage, admin: Browser) -> None:
    page = text_of(await admin.get(MODEL, params={"client": "c-42"}))
    assert re.search(r"c-42 gets \w+ v[12]: bucket 0\.\d{4} lies in", page)
    page = (await admin.get(MODEL, params={"client": "<script>alert(1)</script>"})).text
    assert "<script>alert" not in page


async def test_with_redis_away_the_served_split_is_shown_and_nothing_can_be_changed(tmp_path: Path) -> None:
    away = client_of("redis://127.0.0.1:1/0")
    served = msgspec.structs.replace(TRIAL, revision=7)
    stage = Stage(away, Settings(home=tmp_path, tokens=TOKENS), served)
    async with stage.browser(ADMIN) as admin:
        page = await admin.get(MODEL)
        assert page.status_code == 200
        text = text_of(page)
        assert "Redis does not answer. This is the split that this replica serves" in text
        assert "Revision 7" in text
        assert "v2 is on trial with 5 %" in text
        assert "<fieldset disabled>" in page.text
        assert (await admin.get(f"{MODEL}/live")).status_code == 503
        answer = await admin.fill("change", change="share", share="10", revision="7")
        assert answer.status_code == 503
        assert "Redis does not answer" in text_of(answer)
    await away.aclose()


async def test_several_models_are_listed(redis: Redis, tmp_path: Path) -> None:
    trial = await write_history(redis, "digits", ALONE, TRIAL)
    stage = Stage(redis, Settings(home=tmp_path, tokens=TOKENS), trial)
    stage.app = make_app(redis, Settings(home=tmp_path, tokens=TOKENS), digits=trial, languages=ALONE)
    await put(redis, make_digit(1))
    async with stage.browser(ADMIN) as browser:
        page = text_of(await browser.get("/console"))
        assert "digits revision 2" in page
        assert "v2 for 5 % of the clients" in page
        assert "1 to review" in page
        assert "languages revision 0" in page
    async with stage.browser(REVIEWER) as browser:
        answer = await browser.get("/console")
        page = text_of(answer)
        assert "digits 1 languages 0" in page
        assert "v1" not in page
        links = set(re.findall(r'href="(/console/models/[^"]*)"', answer.text))
        assert links == {f"/console/models/{name}/review" for name in ("digits", "languages")}
        assert {(await browser.get(link)).status_code for link in links} == {200}


async def test_the_service_that_is_not_there_yet() -> None:
    from starlette.applications import Starlette

    from rollout.http.dispatcher import Dispatcher
    from rollout.http.gateway import Gateway
    from service.console import console_routes

    gateway = Gateway()
    app = Dispatcher(Starlette(), gateway, lambda _: console_routes(gateway))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        answer = await client.get("/console")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "The service is starting or stopping" in text_of(answer)
